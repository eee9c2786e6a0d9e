-- Decides calls to one key under Absolute, in turn, and records what is admitted.
--
-- KEYS[1]  the window
-- ARGV[1]  window, µs       ARGV[2]  bucket, µs
-- and for each run of equal calls:
-- ARGV     capacity         of a window, for these calls
-- ARGV     cost             of one call; at the end of ARGV, 1 when left out
-- ARGV     count            how many calls, or 0 to ask about one and record nothing; at the end of ARGV, 1 when left out
--
-- Reply, for each run:
--   admitted   in the window, before the run
--   fit        how many of the run were admitted: the first ones
--   wait       µs until one more would fit, -1 for never; 0 if none was denied
--   left       admitted in the window, once waited
-- At the end of the reply, wait and left of 0 are left out.
--
-- Cost: TIME, GETRANGE, and SETRANGE if anything is admitted; once in a bucket, two or three commands more.

-- include load.lua

-- The short way, for most calls: one run, and all fit.
if steady and ARGV[6] == nil then
  local count = ARGV[5] or 1
  local cost = (ARGV[4] or 1) * count
  if cost > 0 and admitted - gone + cost <= ARGV[3] + 0 then
    call('SETRANGE', key, '7', struct.pack('<I7I7', now, admitted + cost))
    return {admitted - gone, count + 0}
  end
end

-- include window.lua

local reply, dirty
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
  local wait, left = 0, 0
  if cost > capacity then
    wait = -1
  elseif fit == 0 and count == 0 or fit < count then
    -- When will so many have expired that one more fits, and how many are there then?
    local need = admitted + cost - capacity
    if need > gone then
      wait = last + window - now
      if head < size then
        if oldest_admitted >= need then
          wait, left = oldest + window - now, admitted - oldest_admitted
        else
-- include search.lua
          local j, l, a = search(head + 1, function(_, upto) return upto >= need end)
          if j < size then wait, left = l + window - now, admitted - a end
        end
      end
    end
  end
  if reply then
    local n = #reply
    reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = have, fit, wait, left
  else
    reply = {have, fit, wait, left}
  end
end
if dirty then
-- include save.lua
end
return reply
