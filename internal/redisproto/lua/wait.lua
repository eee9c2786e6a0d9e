-- When will so many have expired that one more call of a cost fits into a capacity, and how many are there
-- then? 0 if it fits now, -1 for never.
local need, wait, left = admitted + cost - capacity, 0, 0
if cost > capacity then
  wait = -1
elseif need > gone then
  wait = last + window - now
  if head < size and oldest_admitted >= need then
    wait, left = oldest + window - now, admitted - oldest_admitted
  elseif head < size then
-- include search.lua
    local j, l, a = search(head + 1, function(_, upto) return upto >= need end)
    if j < size then wait, left = math.max(1, l + window - now), math.min(admitted - a, admitted - gone) end -- whatever the log says
  end
end
