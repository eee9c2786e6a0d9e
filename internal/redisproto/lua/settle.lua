-- Settles windows with one of their holders: records what it has admitted and declined, and leases it more.
-- Both strategies. What a message says, and what is done with it, is in package lease, whose Ledger is the
-- same in Go.
--
-- KEYS     the windows
-- ARGV[1]  window, µs       ARGV[2]  bucket, µs
-- ARGV[3]  life of leases far from the limit, µs
-- and for each key:
-- ARGV     message          a string: holder, 8 bytes; slot, 2; then 7 bytes each: seq, capacity, hold, kept,
--                           near, far, far_least, need, near, brief and hold life in µs, waiting, base (admitted
--                           and declined); 1 byte, the sum of 1 for whole, 2 for keeps, 4 for count, 8 for new, 16 for lone;
--                           and for each group 7 bytes each: age and span in µs, admitted, declined
--
-- Reply, for each key: what is wrong with it, a string; or -1 if the message is stale; or:
--   grant      leased beyond what is held
--   life       µs
--   far        0, 1 if the lease is one far from the limit, or 2 if it is so by lone
--   slot       where the holder is in the table
--   live       admitted and declined, two numbers: in the window, after the message
--   others     on lease to others
--   kept       if count was asked: what others have admitted of that, when they were heard last; or 0
--   before     admitted and declined, running, before the message
--   after      the same, after it
--   now        µs, from which ages count
--   next       µs until the next turn of the holder, or -1 if there are no turns
--   and if whole was asked: 0 if there are no groups, or as suppressed.lua: now, gone, gone, groups
--
-- Cost: TIME; for each key GETRANGE of the header and the first slots, and two SETRANGE; one GETRANGE more
-- for a holder beyond these; once in a bucket, one or two commands more. A new holder, and a lease that has
-- aged out, cost the whole table; so does any message while calls wait.

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
    local slot, seq, capacity, hold, kept, near, far, far_least, need, near_life, brief, hold_life, waiting, used_a, used_d, flags =
      struct.unpack('<I2I7I7I7I7I7I7I7I7I7I7I7I7I7I7B', message, 9)
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
    local want, granted = 0, 0
    if mine then
      local was_a, was_d
      heard, want, had, ends, was_a, was_d = struct.unpack('<I5I2I7I7I7I7', mine, 9)
      if want >= TURNS then
        want, granted, was_d = want - TURNS, math.min(was_d, NONE / 4), 0
      elseif want == KEEPS then
        want, was_d = 0, 0
      end
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
      local unused = math.max(0, had - hold)
      for from = 110, #message, 28 do
        local age, span, a, d = struct.unpack('<I7I7I7I7', message, from)
        used_a, used_d = used_a + a, used_d + d
        local skip_a, skip_d = math.min(a, done_a), math.min(d, done_d)
        done_a, done_d, a, d = done_a - skip_a, done_d - skip_d, a - skip_a, d - skip_d
        unused = math.max(0, unused - a)
        -- What is declined must not keep what is admitted from being counted.
        local live_a, live_d = admitted - gone, declined - gone_declined
        a = math.min(a, math.max(0, NONE / 4 - live_a))
        d = math.min(d, math.max(0, NONE / 4 - live_a - live_d - a))
        local at = math.max(0, now - age)
        if a + d > 0 and age < window then
          local began, was = first, live
-- include place.lua
          if not was or first ~= began then first = math.max(0, at - span) end
        end
      end

      -- How much is there for it, and for how long?
      local live_a, live_d, others = admitted - gone, declined - gone_declined, leased - had
      local taken = live_a + others + hold
      local free = math.max(0, capacity - taken)
      local keeps, lone = math.floor(flags / 2) % 2 == 1, flags >= 16
-- include turns.lua
      local alone = (keeps or lone) and others == 0
      if alone then
-- include table.lua
        for i = 0, slots - 1 do
          if i ~= slot and string.sub(table_text, SLOT * i + 1, SLOT * i + 8) ~= NOBODY then alone = false end
        end
      end
      need = need <= free + hold - math.min(hold, kept) and math.min(need, free) or 0
      if next_turn >= 0 then
        life = near_life + math.min(next_turn, math.floor(window / 4))
      elseif keeps or alone then -- the holder keeps a window
        local reserve = math.max(math.floor(capacity / 125), math.min(math.floor(capacity / 20), 50))
        local calm = math.max(0, (math.floor(flags / 8) % 2 == 1 and math.floor(capacity / 4) or capacity - reserve) - taken)
        local share = math.floor((calm + 1) / 2)
        if alone then calm, share = free, hold == 0 and free - math.floor(free / 4) or free end
        grant = math.min(far, share)
        if grant < need and need <= calm then grant = need end
        local all = hold + grant
        is_far = all > 0 and (alone or
          taken <= capacity - math.floor(reserve / 3) and grant >= need and all >= far_least)
        if is_far and all <= math.floor(capacity / 64) then
          life = far_life
        elseif is_far then
          life = math.floor(math.min(window * capacity / (16 * all), far_life))
          life = math.max(life, math.min(brief, far_life))
        end
      else
        local calm = math.max(0, math.floor(capacity / 4) - taken)
        grant, life = math.max(math.min(far, math.floor((calm + 1) / 2)), need), far_life
        is_far = calm > 0 and grant <= calm
      end
      if not is_far and next_turn < 0 then
        grant, life = math.max(math.min(near, others > 0 and math.floor((free + 1) / 2) or free), need), near_life
      end
      leased = others + hold + grant
      ends = now + math.max(life, hold > 0 and hold_life or 0)
      if next_turn >= 0 then
        ends = math.max(ends, now + near_life + next_turn) -- it wants something until it asks again
      elseif want > 0 then
        ends, granted = math.max(ends, now + window + math.floor(window / 4)), granted + grant
      end
      longer = math.max(longer, ends - now)
      due = math.min(due, ends + window)
      -- A holder that keeps a window has settled all before, so what it keeps has the place of what it has
      -- declined; or what it was granted in turns, in which it keeps nothing.
      local last_field, turns = keeps and kept or used_d, 0
      if lone and kept > 0 then last_field, turns = kept, KEEPS end
      if keeps and kept == 0 and (want > 0 or next_turn >= 0) then
        local unit = math.floor(capacity / (TURNS - 1)) + 1
        last_field, turns = math.min(granted, NONE / 4), TURNS + math.floor((want + unit - 1) / unit)
      end
      if turns > TURNS then paced = math.max(paced, now) end
      local record = holder .. struct.pack('<I5I2I7I7I7I7', seq, turns, hold + grant, ends, used_a, last_field)
      if text == '' then
        table_text = string.sub(table_text, 1, SLOT * slot) .. record .. string.sub(table_text, SLOT * slot + SLOT + 1)
      end
-- include save.lua
      if text ~= '' then call('SETRANGE', key, FIXED + SLOT * slot, record) end

      local others_kept = 0
      if math.floor(flags / 4) % 2 == 1 then
-- include table.lua
        for i = 0, slots - 1 do
          if i ~= slot then
            local wants, _, _, _, n_kept = struct.unpack('<I2I7I7I7I7', table_text, SLOT * i + 14)
            if wants == (lone and KEEPS or 0) then others_kept = math.min(others_kept + n_kept, NONE) end
          end
        end
      end
      reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = grant, life, is_far and (lone and alone and 2 or 1) or 0, slot
      reply[n + 5], reply[n + 6], reply[n + 7], reply[n + 8] = live_a, live_d, others, others_kept
      reply[n + 9], reply[n + 10], reply[n + 11], reply[n + 12], reply[n + 13] = before_a, before_d, admitted, declined, now
      reply[n + 14] = next_turn
      n = n + 14
      if flags % 2 == 1 then
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
