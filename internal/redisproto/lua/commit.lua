-- Changes what was admitted by one call: a reservation is settled, as Commit of package window does. Both
-- strategies.
--
-- KEYS     the windows of one key in which it was recorded
-- ARGV[1]  window, µs       ARGV[2]  bucket, µs: those of the first
-- ARGV[3]  kind             a, or s for Suppressed; ha, hs for those of the Hybrid provider
-- ARGV[4]  was              what the call counts so far, where it is still there
-- ARGV[5]  is               what it is to count
-- and for each window:
-- ARGV     window, µs       ARGV  bucket, µs
-- ARGV     from, µs         where it was recorded, so that it leaves the window at its expiry
-- ARGV     at, µs           when it was admitted, which is where it counts from now on
--
-- Reply: for each window: what is wrong with the key, a string; or how much was taken back, and how much was
-- added, which is nothing if it was admitted a window ago.
--
-- Cost: TIME; for each window GETRANGE, and SETRANGE; and a search in its log, GETRANGE and SETRANGE of the
-- part since from, and the same of the part since at if that is later.

local ledger = string.sub(ARGV[3], 1, 1) == 'h'
local full = ledger or ARGV[3] == 's'
-- include clock.lua

local was, is = ARGV[4] + 0, ARGV[5] + 0
local reply = {}
for k = 1, #KEYS do
  local key = KEYS[k]
  local window, bucket = ARGV[4 * k + 2], ARGV[4 * k + 3]
  local from, at = ARGV[4 * k + 4] + 0, ARGV[4 * k + 5] + 0
-- include load.lua
  if fault then
    reply[#reply + 1] = fault
  else
-- include window.lua
-- include search.lua
    if ledger then
-- include table.lua
    end
    -- change adds to the admitted of group i.
    local function change(i, more)
      if i < size and more ~= 0 then
        local begin, log = HEADER + GROUP * i, {}
        local old = call('GETRANGE', key, begin, HEADER + GROUP * size - 1)
        for j = 1, #old, GROUP do
          local l, a, d = struct.unpack('<I7I7I7', old, j)
          log[#log + 1] = struct.pack('<I7I7I7', l, a + more, d)
        end
        call('SETRANGE', key, begin, table.concat(log))
        if i == head then oldest_admitted = oldest_admitted + more end
        if i < recent then recent_before = recent_before + more end
      end
      admitted = admitted + more
    end

    local i, removed, added = nil, 0, 0
    if live and from <= last and now - from < window then
      local ends, upto, l, a = last, admitted, nil, nil
      i, l, a = search(head, function(group_last) return group_last >= from end)
      if i < size then ends, upto = l, a end
      if ends - from < bucket then
        local before = gone
        if i > head then
          local _
          _, before = group(i - 1)
        end
        if upto < before then error(NOT_A_WINDOW, 0) end
        removed = math.min(was, upto - before)
      else -- a group that is longer than a bucket holds none so early: the call was deleted
        i = nil
      end
    end
    if now - at < window then
      added = math.min(is, math.max(0, NONE / 4 - (admitted - gone + declined - gone_declined - removed)))
    end
    if i and from == at then
      change(i, added - removed)
    else
      if i then change(i, -removed) end
      live = live and (gone < admitted or gone_declined < declined)
      if added > 0 then
        local a, d = added, 0
        at = math.min(at, now)
-- include place.lua
      end
    end
    if removed + added > 0 then
      local empty = admitted == gone and declined == gone_declined
      if empty and not ledger then
        call('DEL', key)
      else
        if empty then -- as if all had expired
          head, oldest, first, last = size, NONE, 0, 0
        end
-- include save.lua
      end
    end
    reply[#reply + 1] = removed
    reply[#reply + 1] = added
  end
end
return reply
