-- Decides calls that have several limits to keep, in turn: records what is admitted in all of their windows,
-- or in none. Both strategies; Suppressed records what it declines in all, too.
--
-- KEYS     the windows of one key, one for each limit
-- ARGV[1]  window, µs       ARGV[2]  bucket, µs: those of the first
-- ARGV[3]  kind             a, or s for Suppressed
-- ARGV[4]  hard limit factor
-- ARGV[5]  dice             of Suppressed: three bytes for each call that is recorded
-- and for each limit:
-- ARGV     window, µs       ARGV  bucket, µs       ARGV  capacity
-- and for each run of equal calls:
-- ARGV     cost             of one call
-- ARGV     count            how many calls, or 0 to ask about one and record nothing
--
-- Reply: what is wrong with one of the keys, a string; or for each limit:
--   now        µs, by its window
--   and what absolute.lua, or suppressed.lua, replies for one key, of which "admitted" is what all limits admit
--
-- Cost: TIME; for each window what absolute.lua or suppressed.lua cost.

local full, ledger = ARGV[3] == 's', false
-- include clock.lua

local factor, dice, thrown = ARGV[4] + 0, ARGV[5], 0
local dirty, slope = dice ~= '', 1 / (factor - 1)
local limits = {}
for k = 1, #KEYS do
  local key = KEYS[k]
  local window, bucket, capacity = ARGV[3 * k + 3], ARGV[3 * k + 4], ARGV[3 * k + 5] + 0
-- include load.lua
  if fault then return {fault} end
-- include window.lua
  local limit, opened, sum, lately = {reply = {now}}, false, 0, 0

  -- count returns what the window holds, and observe how many of it are of its recent part.
  function limit.count() return admitted - gone, declined - gone_declined, lately, sum end

  local function open()
    if opened then return end
    opened = true
-- include open.lua
  end

  function limit.record(a, d)
    open()
    admitted, declined, sum = admitted + a, declined + d, sum + a + d
    lately = sum
  end

  function limit.close()
    if opened and steady then
      call('SETRANGE', key, '15', struct.pack('<I7I7I7', last, admitted, declined))
    elseif opened then
-- include save.lua
    end
  end

  if not full then
    -- fit returns how many calls of a cost have room, and wait when one has.
    function limit.fit(cost)
      local fit = (capacity - (admitted - gone)) / cost
      return math.max(0, fit - fit % 1)
    end

    function limit.wait(cost)
-- include wait.lua
      return wait, left
    end
  else
    local hard = capacity * factor
    hard = math.min(math.max(capacity, hard - hard % 1), NONE / 4)
    local recent_part = window / 10
    recent_part = math.max(recent_part - recent_part % 1, 1)
    local scale = window / (recent_part + bucket)

    function limit.observe()
      local quiet = last <= now - recent_part
      if dirty then open() end
-- include recent.lua
      sum, lately = joined, seen
    end

    function limit.chance(cost)
      local x, seen = admitted - gone, lately
      local observed = x + declined - gone_declined
-- include law.lua
      return chance
    end

    function limit.groups()
      local reply, n = limit.reply, #limit.reply
      if live then
-- include groups.lua
      else
        reply[n + 1] = 0
      end
    end
  end
  limits[k] = limit
end

-- From here on, nothing can be wrong with a key.
local function push(limit, ...)
  local reply = limit.reply
  for _, number in ipairs({...}) do reply[#reply + 1] = number end
end

local wanted = false
if full then
  for _, limit in ipairs(limits) do limit.observe() end
end
for i = 6 + 3 * #KEYS, #ARGV, 2 do
  local cost, count = ARGV[i] + 0, ARGV[i + 1] + 0
  if full then
    for _, limit in ipairs(limits) do push(limit, limit.count()) end
    if count == 0 then wanted = true end
    local bits, bit = 0, 1
    for j = 1, count do
      local chance = 0
      for _, limit in ipairs(limits) do chance = math.max(chance, limit.chance(cost)) end
      local b1, b2, b3 = string.byte(dice, thrown + 1, thrown + 3)
      thrown = thrown + 3
      local passes = (b1 * 65536 + b2 * 256 + b3 + 0.5) / 16777216 >= chance
      if passes then bits = bits + bit else wanted = true end
      bit = 2 * bit
      for _, limit in ipairs(limits) do
        if passes then
          limit.record(cost, 0)
        else
          local a, d = limit.count()
          limit.record(0, math.max(0, math.min(cost, NONE / 4 - a - d)))
        end
        if j % 32 == 0 or j == count then push(limit, bits) end
      end
      if j % 32 == 0 then bits, bit = 0, 1 end
    end
  else
    local fit = count
    for _, limit in ipairs(limits) do fit = math.min(fit, limit.fit(cost)) end
    for _, limit in ipairs(limits) do
      local have = limit.count()
      push(limit, have, fit)
      if fit > 0 then limit.record(fit * cost, 0) end
      if fit < count or count == 0 then push(limit, limit.wait(cost)) end
    end
  end
end

local reply = {}
for _, limit in ipairs(limits) do
  limit.close()
  if wanted then limit.groups() elseif full then push(limit, 0) end
  for _, number in ipairs(limit.reply) do reply[#reply + 1] = number end
end
return reply
