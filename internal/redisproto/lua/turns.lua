-- Turns, as package lease has them: which other holders want something, and what the asker gets of what is
-- free. Afterwards want is what the asker wants, and next_turn is in how many µs its next turn comes; it is
-- -1 if no other holder wants anything.
local grant, life, is_far
local next_turn, wanted = -1, want > 0 and now < ends
want = keeps and math.min(waiting, capacity) or 0
if not keeps then granted = 0 end
local rivals = {}
if keeps and (want > 0 or now - paced < 2 * window) then
-- include table.lua
  local unit = math.floor(capacity / (TURNS - 1)) + 1
  for i = 0, slots - 1 do
    local wants, _, until_then = struct.unpack('<I2I7I7', table_text, SLOT * i + 14)
    if i ~= slot and wants > TURNS and now < until_then then
      local count = struct.unpack('<I7', table_text, SLOT * i + 37)
      local low, high = struct.unpack('<I4I4', table_text, SLOT * i + 1)
      local cost = math.min((wants - TURNS) * unit, math.max(capacity, 1))
      rivals[#rivals + 1] = {granted = math.min(count, NONE / 4), low = low, high = high, want = cost}
    end
  end
end
local count = #rivals + 1
if count > 1 then
  local low, high = struct.unpack('<I4I4', holder, 1)
  local function by_id(a, b)
    return a.high < b.high or a.high == b.high and a.low < b.low
  end
  table.sort(rivals, function(a, b)
    return a.granted < b.granted or a.granted == b.granted and by_id(a, b)
  end)
  if not wanted then granted = math.max(granted, rivals[1].granted) end
  local bottom = math.max(granted, rivals[count - 1].granted)
  bottom = bottom - math.min(bottom, math.max(2, math.floor(2 * capacity / count)))
  granted = math.max(granted, bottom)
  for i = 1, count - 1 do rivals[i].granted = math.max(rivals[i].granted, bottom) end
  local amount = math.max(near, math.min(need, capacity))
  granted = math.max(0, granted - unused)

  local me, each = {low = low, high = high}, math.max(want, 1)
  local least, most = each, each
  for i = 1, count - 1 do least, most = math.min(least, rivals[i].want), math.max(most, rivals[i].want) end
  local per = window / (math.max(capacity, 1) * 1.25)
  local soon = math.floor(math.floor(near_life / 2) / per) -- what is due until the asker asks again
  local burst = math.max(most, math.min(math.floor(capacity / 16), 2 * count * least), math.min(soon, capacity))
  local ahead = math.max(paced, now) - now
  if ahead > window then ahead = 0 end
  local pool, left, i = math.min(free, math.max(0, math.floor(burst - ahead / per))), amount, 1
  grant = 0
  while pool > 0 and left > 0 do
    local other = rivals[i]
    if other and (other.granted < granted or other.granted == granted and by_id(other, me)) then
      pool, i = pool - math.min(pool, other.want), i + 1
    else
      local calls = math.min(math.floor((left - 1) / each) + 1, math.floor(pool / each))
      if other then
        local upto = math.floor((other.granted - granted) / each) + 1
        if (other.granted - granted) % each == 0 and by_id(other, me) then upto = upto - 1 end
        calls = math.min(calls, upto)
      end
      if calls == 0 then break end
      local cost = calls * each
      grant, pool, left, granted = grant + cost, pool - cost, left - math.min(left, cost), granted + cost
    end
  end
  grant = math.min(grant, amount)
  ahead = ahead + math.ceil(grant * per)
  paced = now + ahead

  local worth = math.max(1, math.min(math.floor(capacity / (16 * count)), amount, 2 * least))
  local calls = math.max(1, math.floor(worth / each))
  local upto, cost = granted + (calls - 1) * each, calls * each
  for j = 1, count - 1 do
    local other = rivals[j]
    if other.granted <= upto then
      local times = math.floor((upto - other.granted) / other.want) + 1
      if (upto - other.granted) % other.want == 0 and not by_id(other, me) then times = times - 1 end
      cost = cost + times * other.want
    end
  end
  next_turn = math.max(1, ahead + math.ceil((cost - burst) * per))
  -- When has so much been handed out, if all that is handed out is used at once?
  local rest, windows = free - grant, math.floor((cost - 1) / math.max(capacity, 1))
  local at = windows * window
  cost = cost - (windows * capacity + rest)
  if cost > live_a then
    cost = cost - live_a
    at = at + window - window / 4 * (1 - cost / math.max(capacity - rest - live_a, cost))
  elseif cost > 0 then
    local j, ends_at = search(head, function(_, upto_a) return upto_a - gone >= cost end)
    at = at + (j < size and ends_at or last) + window - now
  end
  next_turn = math.floor(math.min(math.max(next_turn, at), 4 * window))
else
  granted = math.max(0, granted - unused)
end
