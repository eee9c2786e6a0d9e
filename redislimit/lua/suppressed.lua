-- Decides calls to one key under Suppressed, in turn, and records what is admitted and what is declined.
--
-- The law is that of package window; TestLaw holds the two equal. It is here because a decision and its record must be one
-- step, and each decision changes the odds of the next.
--
-- KEYS[1]  the window
-- ARGV[1]  window, µs       ARGV[2]  bucket, µs
-- ARGV[3]  hard limit factor
-- ARGV[4]  dice             three bytes for each call that is recorded
-- and for each run of equal calls:
-- ARGV     capacity         of a window, for these calls
-- ARGV     cost             of one call
-- ARGV     count            how many calls, or 0 to ask and record nothing
--
-- Reply, for each run:
--   admitted   in the window, before the run
--   declined   in the window, before the run
--   recent     observed in the recent part of the window, before the run
--   joined     the same, as soon as the run has recorded anything, less that
--   bits       one number for each 32 calls of the run: bit i is set if call i was admitted
-- and then, for the waiting times:
--   now        µs
--   gone       running counts, admitted and declined, before the oldest group
--   gone
--   groups     a string: the live groups after all runs as in the log, the newest group included. Of more than 128,
--              neighbours are taken together. It is left out if nothing was declined or asked.
--
-- Cost: TIME, GETRANGE and SETRANGE, one GETRANGE more if anything is declined; once in a bucket, two or three more.

-- include load.lua
-- include window.lua

local CALM, REFILL, FLOOR, SIGMAS, RECENT_SHARE, MOST = 0.8, 0.8, 0.3, 2, 10, NONE / 4
local factor, dice = ARGV[3] + 0, ARGV[4]
local slope, recent_part = 1 / (factor - 1), math.max(math.floor(window / RECENT_SHARE), 1)
local scale = window / (recent_part + bucket)

-- How many were observed in the recent part? The first group in it only moves on. If the newest group has been quiet for so
-- long that it is not in it, what is recorded now may bring it back, whole.
local quiet, dirty = last <= now - recent_part, dice ~= ''
if dirty then
-- include open.lua
end
if live and recent < size then
-- include search.lua
  local from = recent
  recent = search(from, function(at) return at > now - recent_part end)
  if recent > from then
    local _, a, d = group(recent - 1)
    recent_before = a + d
  end
end
local joined = admitted + declined - recent_before
local seen = quiet and 0 or joined

-- odds returns the probability with which to decline a call, if that many are in the window and in its recent part.
local function odds(capacity, hard, cost, x, observed)
  if cost > capacity or x + cost > hard then return 1 end
  if observed < CALM * capacity or factor == 1 then return 0 end
  local aim
  if x < capacity then
    aim = capacity + REFILL * (capacity - x)
  else
    local brake = (factor * capacity - x) * slope
    aim = math.max(brake, math.min(FLOOR * capacity, 4 * brake))
  end
  local load
  if seen * scale > observed then
    load = math.max(observed, (seen - SIGMAS * math.sqrt(seen)) * scale)
  else
    load = math.min(observed, (seen + SIGMAS * math.sqrt(seen + 1) + 1) * scale)
  end
  if aim < load then return 1 - aim / load end
  return 0
end

local reply, wanted, thrown = {}, false, 0
for i = 5, #ARGV, 3 do
  local capacity, cost, count = ARGV[i] + 0, ARGV[i + 1] + 0, ARGV[i + 2] + 0
  local hard = math.min(math.max(capacity, math.floor(capacity * factor)), MOST)
  reply[#reply + 1] = admitted - gone
  reply[#reply + 1] = declined - gone_declined
  reply[#reply + 1] = seen
  reply[#reply + 1] = joined
  if count == 0 then wanted = true end
  local bits, bit = 0, 1
  for j = 1, count do
    local b1, b2, b3 = string.byte(dice, thrown + 1, thrown + 3)
    thrown = thrown + 3
    local x, observed = admitted - gone, admitted - gone + declined - gone_declined
    local n = cost
    if (b1 * 65536 + b2 * 256 + b3 + 0.5) / 16777216 >= odds(capacity, hard, cost, x, observed) then
      admitted = admitted + cost
      bits = bits + bit
    else
      n = math.max(0, math.min(cost, MOST - observed))
      declined = declined + n
      wanted = true
    end
    joined = joined + n
    seen = joined
    bit = 2 * bit
    if j % 32 == 0 or j == count then
      reply[#reply + 1] = bits
      bits, bit = 0, 1
    end
  end
end
if dirty then
-- include save.lua
end

if wanted and live then
  local groups, few = {}, math.ceil((size - head) / 128)
  if few == 1 then
    groups[1] = call('GETRANGE', key, HEADER + GROUP * head, HEADER + GROUP * size - 1)
  elseif few > 1 then
    for i = size - 1, head, -few do
      table.insert(groups, 1, (call('GETRANGE', key, HEADER + GROUP * i, HEADER + GROUP * i + GROUP - 1)))
    end
  end
  groups[#groups + 1] = struct.pack('<I7I7I7', last, admitted, declined)
  reply[#reply + 1] = now
  reply[#reply + 1] = gone
  reply[#reply + 1] = gone_declined
  reply[#reply + 1] = table.concat(groups)
end
return reply
