-- Settles windows with one of their holders: records what it has admitted and declined, and leases it more.
-- Both strategies. What a message says, and what is done with it, is in package lease, whose Ledger is the
-- same in Go.
--
-- KEYS     the windows
-- ARGV[1]  window, µs       ARGV[2]  bucket, µs
-- ARGV[3]  life of leases far from the limit, µs
-- and for each key:
-- ARGV     message          a string: holder, 8 bytes; slot, 2; then 7 bytes each: seq, capacity, hold, near, far, need, near
--                           life in µs, base (admitted and declined); whole, 1; and for each group 7 bytes each: age and span in µs, admitted, declined
--
-- Reply, for each key: what is wrong with it, a string; or -1 if the message is stale; or:
--   grant      leased beyond what is held
--   life       µs
--   slot       where the holder is in the table
--   live       admitted and declined, two numbers: in the window, after the message
--   others     on lease to others
--   before     admitted and declined, running, before the message
--   after      the same, after it
--   now        µs, from which ages count
--   and if whole was asked: 0 if there are no groups, or as suppressed.lua: now, gone, gone, groups
--
-- Cost: TIME; for each key GETRANGE of the header and the first slots, and two SETRANGE; one GETRANGE more
-- for a holder beyond these; once in a bucket, one or two commands more. A new holder, and a lease that has
-- aged out, cost the whole table.

local full, ledger = true, true
-- include clock.lua
local far_life = ARGV[3] + 0

local reply, n = {}, 0
for k = 1, #KEYS do
  local key, message = KEYS[k], ARGV[k + 3]
-- include load.lua
  if fault then
    n = n + 1
    reply[n] = fault
  else
-- include window.lua
-- include search.lua
    local holder = string.sub(message, 1, 8)
    local slot, seq, capacity, hold, near, far, need, near_life, used_a, used_d, whole =
      struct.unpack('<I2I7I7I7I7I7I7I7I7I7B', message, 9)
    longer = math.max(near_life, far_life)

    -- Find the holder.
    local mine
    if slot < slots then
      local from = FIXED + SLOT * slot
      if from + SLOT <= #text then
        mine = string.sub(text, from + 1, from + SLOT)
      else
        mine = call('GETRANGE', key, from, from + SLOT - 1)
      end
      if string.sub(mine, 1, 8) ~= holder then mine = nil end
    end
    if not mine then
-- include table.lua
      local free = slots
      for i = slots - 1, 0, -1 do
        local id = string.sub(table_text, SLOT * i + 1, SLOT * i + 8)
        if id == holder then
          slot, mine = i, string.sub(table_text, SLOT * i + 1, SLOT * i + SLOT)
        elseif id == NOBODY then
          free = i
        end
      end
      if not mine then slot = free end
    end
    local heard, had, ends, before_a, before_d = 0, 0, 0, admitted, declined
    local done_a, done_d = 0, 0 -- of the groups, what is settled already
    if mine then
      local was_a, was_d
      heard, had, ends, was_a, was_d = struct.unpack('<I7I7I7I7I7', mine, 9)
      done_a, done_d = math.max(0, was_a - used_a), math.max(0, was_d - used_d)
    end
    if seq <= heard then
      n = n + 1
      reply[n] = -1
    elseif slot >= 60000 then
      n = n + 1
      reply[n] = 'NOTAWINDOW the key has more holders than its table can have'
    else
      if leased < had then error(NOT_A_WINDOW, 0) end
      -- Forget leases of others that have aged out.
      if now >= due then
-- include table.lua
        local kept = {}
        due = NONE
        for i = 0, slots - 1 do
          local one = string.sub(table_text, SLOT * i + 1, SLOT * i + SLOT)
          local _, amount, until_then = struct.unpack('<I7I7I7', one, 9)
          if i ~= slot and until_then + window <= now and until_then > 0 then
            leased = leased - amount
            one = string.rep('\0', SLOT)
          elseif i ~= slot and until_then > 0 then
            due = math.min(due, until_then + window)
          end
          kept[i + 1] = one
        end
        table_text = table.concat(kept)
        if leased < had then error(NOT_A_WINDOW, 0) end
        if slots > 0 then call('SETRANGE', key, FIXED, table_text) end
      end

      -- A new holder may need a larger table.
      if slot == slots then
        slots = slots + math.max(1, math.floor(slots / 2))
        table_text = table_text .. string.rep('\0', SLOT * slots - #table_text)
        if text ~= '' then
          local log = size > 0 and call('GETRANGE', key, HEADER, HEADER + GROUP * size - 1) or ''
          call('SET', key, string.sub(text, 1, FIXED) .. table_text .. log, 'KEEPTTL')
        end
        HEADER = FIXED + SLOT * slots
      end
      if not live and text ~= '' then
-- include table.lua
      end
      for from = 75, #message, 28 do
        local age, span, a, d = struct.unpack('<I7I7I7I7', message, from)
        used_a, used_d = used_a + a, used_d + d
        local skip_a, skip_d = math.min(a, done_a), math.min(d, done_d)
        done_a, done_d, a, d = done_a - skip_a, done_d - skip_d, a - skip_a, d - skip_d
        -- What is declined must not keep what is admitted from being counted.
        local live_a, live_d = admitted - gone, declined - gone_declined
        a = math.min(a, math.max(0, NONE / 4 - live_a))
        d = math.min(d, math.max(0, NONE / 4 - live_a - live_d - a))
        local at = now - age
        if a + d > 0 and age < window then
          if not live or at >= last then
            local time, began, was = now, first, live
            now = at
-- include open.lua
            now = time
            if not was or first ~= began then first = math.max(0, at - span) end
          elseif at < first and text ~= '' then
            -- It belongs to a group that is closed.
            local i = search(head, function(l) return l >= at end)
            if i < size then
              local begin, log = HEADER + GROUP * i, {}
              local old = call('GETRANGE', key, begin, HEADER + GROUP * size - 1)
              for j = 0, size - i - 1 do
                local l, upto_a, upto_d = struct.unpack('<I7I7I7', old, GROUP * j + 1)
                log[j + 1] = struct.pack('<I7I7I7', l, upto_a + a, upto_d + d)
              end
              call('SETRANGE', key, begin, table.concat(log))
              if i == head then oldest_admitted, oldest_declined = oldest_admitted + a, oldest_declined + d end
              if i < recent then recent_before = recent_before + a + d end
            end
          end
          admitted, declined = admitted + a, declined + d
        end
      end

      -- How much is there for it, and for how long?
      local live_a, live_d, others = admitted - gone, declined - gone_declined, leased - had
      local taken = live_a + others + hold
      local free = math.max(0, capacity - taken)
      need = need <= free + hold and math.min(need, free) or 0
      local quarter = math.max(0, math.floor(capacity / 4) - taken)
      local grant, life = math.max(math.min(far, math.floor((quarter + 1) / 2)), need), far_life
      if quarter == 0 or grant > quarter then
        grant, life = math.max(math.min(near, others > 0 and math.floor((free + 1) / 2) or free), need), near_life
      end
      leased = others + hold + grant
      -- What is held is used to its end if the holder does not hear of another.
      ends = math.max(now + life, hold > 0 and ends or 0)
      due = math.min(due, ends + window)
      local record = holder .. struct.pack('<I7I7I7I7I7', seq, hold + grant, ends, used_a, used_d)
      if text == '' then
        table_text = string.sub(table_text, 1, SLOT * slot) .. record .. string.sub(table_text, SLOT * slot + SLOT + 1)
      end
-- include save.lua
      if text ~= '' then call('SETRANGE', key, FIXED + SLOT * slot, record) end

      reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4], reply[n + 5], reply[n + 6] = grant, life, slot, live_a, live_d, others
      reply[n + 7], reply[n + 8], reply[n + 9], reply[n + 10], reply[n + 11] = before_a, before_d, admitted, declined, now
      n = n + 11
      if whole == 1 then
        if live then
-- include groups.lua
        else
          n = n + 1
          reply[n] = 0
        end
      end
    end
  end
end
return reply
