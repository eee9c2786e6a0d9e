-- Records events of the past as Place of package window does: a admitted and d declined ones, at an instant
-- that is less than a window ago. Needs search.lua. The whole header must be written after it.
local grain = bucket
if now - at >= bucket then
  grain = math.min(bucket, math.max(1, math.floor((at + window - now) / 8)))
end
if not live or at > last then
  local time, whole = now, bucket
  now, bucket = at, grain
-- include open.lua
  now, bucket = time, whole
elseif at < first or last - at >= bucket then
  if text == '' then -- it was begun in this run, and is not written yet
-- include save.lua
    text = new
  end
  local i, l = search(head, function(group_last) return group_last >= at end)
  local begin, log = HEADER + GROUP * i, {}
  if i == head and i == size and call('STRLEN', key) < begin then error(NOT_A_WINDOW, 0) end
  local old = i < size and call('GETRANGE', key, begin, HEADER + GROUP * size - 1) or ''
  if i < size and l - at < bucket then -- they join it
    if i == head then oldest_admitted, oldest_declined = oldest_admitted + a, oldest_declined + d end
    if i < recent then recent_before = recent_before + a + d end
  else
    local ends = i < size and l - bucket or first - 1 -- at most: no event of a later group is before that
    ends = math.max(at, math.min(at + grain - 1, ends))
    local upto_a, upto_d = gone, gone_declined
    if i > head then
      local _
      _, upto_a, upto_d = group(i - 1)
    end
    upto_a, upto_d = upto_a + a, upto_d + d
    log[1] = struct.pack('<I7I7I7', ends, upto_a, upto_d)
    size = size + 1
    if i == head then oldest, oldest_admitted, oldest_declined = ends, upto_a, upto_d end
    if i == recent then
      recent_last = ends
    elseif i < recent then
      recent, recent_before = recent + 1, recent_before + a + d
    end
  end
  for j = 1, #old, GROUP do
    local group_last, upto_a, upto_d = struct.unpack('<I7I7I7', old, j)
    log[#log + 1] = struct.pack('<I7I7I7', group_last, upto_a + a, upto_d + d)
  end
  call('SETRANGE', key, begin, table.concat(log))
end
admitted, declined, steady = admitted + a, declined + d, false
