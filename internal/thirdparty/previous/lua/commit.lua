-- Changes what was admitted by one call at an instant, in the group where it is: a reservation is settled.
-- Both strategies.
--
-- KEYS     the windows of one key in which it was recorded
-- ARGV[1]  window, µs       ARGV[2]  bucket, µs: those of the first
-- ARGV[3]  kind             a, or s for Suppressed; ha, hs for those of the Hybrid provider
-- ARGV[4]  was              what the call counts so far
-- ARGV[5]  is               what it is to count
-- and for each window:
-- ARGV     window, µs       ARGV  bucket, µs       ARGV  at, µs: when it was recorded
--
-- Reply: for each window: what is wrong with the key, a string; or 1, or 0 if the call is not in the window
-- any more.
--
-- Cost: TIME; for each window GETRANGE, a search in its log, GETRANGE and SETRANGE of the part since,
-- SETRANGE.

local ledger = string.sub(ARGV[3], 1, 1) == 'h'
local full = ledger or ARGV[3] == 's'
-- include clock.lua

local was, is = ARGV[4] + 0, ARGV[5] + 0
local reply = {}
for k = 1, #KEYS do
  local key = KEYS[k]
  local window, bucket, at = ARGV[3 * k + 3], ARGV[3 * k + 4], ARGV[3 * k + 5] + 0
-- include load.lua
  reply[k] = fault or 0
  if not fault then
-- include window.lua
-- include search.lua
    local i, until_then, upto = size, last, admitted
    if live and at <= last and now - at < window then
      local l, a
      i, l, a = search(head, function(group_last) return group_last >= at end)
      if i < size then until_then, upto = l, a end
    end
    -- A group that is longer than a bucket holds none so early: it was deleted.
    if live and at <= last and now - at < window and until_then - at < bucket then
      local before = gone
      if i > head then
        local _, a = group(i - 1)
        before = a
      end
      local more = math.max(is - was, before - upto)
      more = math.min(more, math.max(0, NONE / 4 - (admitted - gone + declined - gone_declined)))
      if i < size then
        local from, log = HEADER + GROUP * i, {}
        local old = call('GETRANGE', key, from, HEADER + GROUP * size - 1)
        for j = 0, size - i - 1 do
          local l, a, d = struct.unpack('<I7I7I7', old, GROUP * j + 1)
          log[j + 1] = struct.pack('<I7I7I7', l, a + more, d)
        end
        call('SETRANGE', key, from, table.concat(log))
        if i == head then oldest_admitted = oldest_admitted + more end
        if i < recent then recent_before = recent_before + more end
      end
      admitted = admitted + more
      local empty = admitted == gone and declined == gone_declined
      if empty and not ledger then
        call('DEL', key)
      else
        if empty then -- as if all had expired
          head, oldest, first, last = size, NONE, 0, 0
        end
-- include save.lua
      end
      reply[k] = 1
    end
  end
end
return reply
