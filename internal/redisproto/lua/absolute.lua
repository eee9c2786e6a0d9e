-- Decides calls under Absolute, in turn, and records what is admitted. All keys are asked the same, apart
-- from each other.
--
-- KEYS     the windows
-- ARGV[1]  window, µs       ARGV[2]  bucket, µs
-- and for each run of equal calls to each key:
-- ARGV     capacity         of a window, for these calls
-- ARGV     cost             of one call; at the end of ARGV, 1 when left out
-- ARGV     count            how many calls, or 0 to ask about one and record nothing; at the end of ARGV, 1 when left out
--
-- Reply, for each key: what is wrong with it, a string, or for each run:
--   admitted   in the window, before the run
--   fit        how many of the run were admitted: the first ones
--   and unless that is all of them (of a count of 0, none is):
--   wait       µs until one more would fit, 0 if it does now, -1 for never
--   left       admitted in the window, once waited
--
-- Cost: TIME; for each key GETRANGE, and SETRANGE if anything is admitted; once in a bucket, one or two
-- commands more.

local full, ledger = false, false
-- include clock.lua

local reply, n = {nil, nil}, 0 -- as long as most are
local all = not ARGV[6] and (ARGV[4] or 1) * (ARGV[5] or 1) or 0 -- cost of all calls, if they are one run
for k = 1, #KEYS do
  local key = KEYS[k]
-- include load.lua
  if fault then
    n = n + 1
    reply[n] = fault
  elseif steady and all > 0 and admitted - gone + all <= ARGV[3] + 0 then
    -- The short way, for most calls: all fit.
    call('SETRANGE', key, '15', struct.pack('<I7I7', now, admitted + all))
    reply[n + 1], reply[n + 2] = admitted - gone, (ARGV[5] or 1) + 0
    n = n + 2
  else
-- include window.lua
    local dirty
    for i = 3, #ARGV, 3 do
      local capacity, cost, count = ARGV[i] + 0, (ARGV[i + 1] or 1) + 0, (ARGV[i + 2] or 1) + 0
      local have = admitted - gone
      local fit = (capacity - have) / cost
      if fit < count then fit = math.max(0, fit - fit % 1) else fit = count end
      if fit > 0 then
        if not dirty then
-- include open.lua
        end
        dirty = true
        admitted = admitted + fit * cost
      end
      reply[n + 1], reply[n + 2] = have, fit
      n = n + 2
      if fit < count or count == 0 then
-- include wait.lua
        reply[n + 1], reply[n + 2] = wait, left
        n = n + 2
      end
    end
    if dirty or stale and live then -- what counts from now must leave a window from now, also if nothing is admitted until then
-- include save.lua
    end
  end
end
return reply
