-- The law of package window: the chance to decline a call of a cost, when x were admitted, and so many
-- observed, in the window and in its recent part. The aim is by what was admitted, the load by what was
-- observed.
local chance = 0
if cost > capacity or x + cost > hard then
  chance = 1
elseif observed >= 0.8 * capacity and factor ~= 1 then
  local aim
  if x < capacity then
    aim = capacity + 0.8 * (capacity - x)
  else
    local brake = (factor * capacity - x) * slope
    aim = math.max(brake, math.min(0.3 * capacity, 4 * brake))
  end
  local load
  if seen * scale > observed then
    load = math.max(observed, (seen - 2 * math.sqrt(seen)) * scale)
  else
    load = math.min(observed, (seen + 2 * math.sqrt(seen + 1) + 1) * scale)
  end
  if aim < load then chance = 1 - aim / load end
end
