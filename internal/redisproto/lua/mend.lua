-- Begins windows again that cannot be read: their log contradicts their header, they are cut off, or a string
-- of somebody else. What the header counts is kept if that makes sense: as one group, which ends with the
-- last event, so that nothing is forgotten too early. So does what is on lease. Windows that are in order
-- stay as they are.
--
-- KEYS     the windows of one key ARGV[1]  window, µs       ARGV[2]  bucket, µs: those of the first ARGV[3]
-- kind             a, or s for Suppressed; ha, hs for those of the Hybrid provider ARGV[4]  all
-- 1 if a script could not read them although nothing seems wrong: all are begun again. Else 0 and for each
-- window: ARGV     window, µs       ARGV  bucket, µs
--
-- Reply: for each window 1 if it was begun again, else 0.
--
-- Cost: TIME; for each window GETRANGE of all of it, and SET or DEL.

local ledger = string.sub(ARGV[3], 1, 1) == 'h'
local full = ledger or ARGV[3] == 's'
-- include clock.lua

local reply = {}
for k = 1, #KEYS do
  local key = KEYS[k]
  local window, bucket = ARGV[2 * k + 3] + 0, ARGV[2 * k + 4] + 0
-- include load.lua
  reply[k] = 0
  if not text.err and text ~= '' then
    local all = call('GETRANGE', key, 0, -1)
    local gone_declined, oldest_declined, recent, recent_before, recent_last = 0, 0, 0, 0, 0
    if full and not fault then
      oldest_declined, gone_declined, recent, recent_before = struct.unpack('<I7I7I4I7', text, 73)
    end

    -- Do the counts make sense? Then they are kept: those of what was admitted also without the others, since
    -- a call may have been admitted by them.
    local counts, declines = not fault and admitted - gone <= NONE / 4, true
    if counts and (declined > MOST_EVER or gone_declined > declined or declined - gone_declined > NONE / 4) then
      declined, gone_declined, declines = 0, 0, false
    end

    -- Is the table of holders whole?
    local held, holders, last_end = 0, ledger and not fault and #all >= HEADER, 0
    if holders then
      table_text = string.sub(all, FIXED + 1, HEADER)
      due = NONE
      for i = 0, slots - 1 do
        local amount, until_then = struct.unpack('<I7I7', table_text, SLOT * i + 16)
        held = held + amount
        holders = holders and held <= NONE / 4
        if until_then > 0 then
          due, last_end = math.min(due, until_then + window), math.max(last_end, until_then)
        end
      end
      holders = holders and last_end - now <= 100 * window + 86400000000 -- no lease lives that long
    end

    -- Does the log agree with the header?
    local sound = ARGV[4] ~= '1' and counts and declines and #all == HEADER + GROUP * size
      and first <= last and head <= size and recent <= size and recent_before <= admitted + declined
      and (not full or recent_before >= gone + gone_declined)
      and (not ledger or holders and held == leased)
    if sound then
      local l, a, d, at_head = 0, 0, 0, NONE
      for i = 0, size do
        local next_l, next_a, next_d = last, admitted, declined
        if i < size then next_l, next_a, next_d = struct.unpack('<I7I7I7', all, HEADER + GROUP * i + 1) end
        if i == head then
          sound = sound and gone >= a and gone_declined >= d and gone <= next_a and gone_declined <= next_d
          if i < size then
            at_head = next_l
            sound = sound and next_a == oldest_admitted and next_d == oldest_declined
          end
        end
        -- A ledger whose window was cleared has no last event.
        sound = sound and (next_l >= l or i == size and head == size) and next_a >= a and next_d >= d
        l, a, d = next_l, next_a, next_d
      end
      sound = sound and at_head == oldest
    end

    if not sound then
      reply[k] = 1
      if not counts then admitted, gone, declined, gone_declined, last = 0, 0, 0, 0, 0 end
      if not holders then table_text, slots, held, due, last_end = '', 0, 0, NONE, 0 end
      last = math.min(last, now)
      local live = now - last < window and (admitted ~= gone or declined ~= gone_declined)
      admitted, declined, gone, gone_declined = admitted - gone, declined - gone_declined, 0, 0
      if not live then last, admitted, declined = 0, 0, 0 end
      if not live and slots == 0 then
        call('DEL', key)
      else
        leased, longer = held, math.max(0, last_end - now)
        first, head, size, oldest, oldest_admitted, oldest_declined = last, 0, 0, NONE, 0, 0
        recent, recent_before, recent_last, expires = 0, gone + gone_declined, 0, 0
        text = ''
-- include save.lua
      end
    end
  end
end
return reply
