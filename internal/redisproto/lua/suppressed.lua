-- Decides calls under Suppressed, in turn, and records what is admitted and what is declined. All keys are
-- asked the same, apart from each other.
--
-- The law is that of package window, with its numbers; TestTwin holds the two equal. It is here because a
-- decision and its record must be one step, and each decision changes the odds of the next.
--
-- KEYS     the windows
-- ARGV[1]  window, µs       ARGV[2]  bucket, µs
-- ARGV[3]  hard limit factor
-- ARGV[4]  dice             three bytes for each call that is recorded, key by key
-- and for each run of equal calls to each key:
-- ARGV     capacity         of a window, for these calls
-- ARGV     cost             of one call
-- ARGV     count            how many calls, or 0 to ask and record nothing
--
-- Reply, for each key: what is wrong with it, a string, or for each run:
--   admitted   in the window, before the run
--   declined   in the window, before the run
--   recent     observed in the recent part of the window, before the run
--   joined     the same, as soon as the run has recorded anything, less that
--   bits       one number for each 32 calls of the run: bit i is set if call i was admitted
-- and then, for the waiting times, 0 if nothing was declined or asked, or:
--   now        µs
--   gone       running counts, admitted and declined, before the oldest group
--   gone
--   groups     a string: the live groups after all runs as in the log, the newest group included. Of more than 128,
--              neighbours are taken together
--
-- Cost: TIME; for each key GETRANGE and SETRANGE, one GETRANGE more if anything is declined; once in a
-- bucket, two or three more.

local full, ledger = true, false
-- include clock.lua

local factor, dice, thrown = ARGV[3] + 0, ARGV[4], 0
local dirty, slope = dice ~= '', 1 / (factor - 1)
local recent_part = window / 10
recent_part = math.max(recent_part - recent_part % 1, 1)
local scale = window / (recent_part + bucket)
local reply, n = {}, 0
for k = 1, #KEYS do
  local key = KEYS[k]
-- include load.lua
  if fault then
    n = n + 1
    reply[n] = fault
    thrown = thrown + #dice / #KEYS
  else
-- include window.lua
    local quiet = last <= now - recent_part
    if dirty then
-- include open.lua
    end
-- include recent.lua

    local wanted = false
    for i = 5, #ARGV, 3 do
      local capacity, cost, count = ARGV[i] + 0, ARGV[i + 1] + 0, ARGV[i + 2] + 0
      local hard = capacity * factor
      hard = math.min(math.max(capacity, hard - hard % 1), NONE / 4)
      reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = admitted - gone, declined - gone_declined, seen, joined
      n = n + 4
      if count == 0 then wanted = true end
      local bits, bit = 0, 1
      for j = 1, count do
        local x = admitted - gone
        local observed = x + declined - gone_declined
-- include law.lua
        local b1, b2, b3 = string.byte(dice, thrown + 1, thrown + 3)
        thrown = thrown + 3
        if (b1 * 65536 + b2 * 256 + b3 + 0.5) / 16777216 >= chance then
          admitted = admitted + cost
          bits = bits + bit
          joined = joined + cost
        else
          local declining = math.max(0, math.min(cost, NONE / 4 - observed))
          declined = declined + declining
          joined = joined + declining
          wanted = true
        end
        seen = joined
        bit = 2 * bit
        if j % 32 == 0 or j == count then
          n = n + 1
          reply[n] = bits
          bits, bit = 0, 1
        end
      end
    end
    if dirty and steady then
      call('SETRANGE', key, '15', struct.pack('<I7I7I7', last, admitted, declined))
    elseif dirty then
-- include save.lua
    end

    if wanted and live then
-- include groups.lua
    else
      n = n + 1
      reply[n] = 0
    end
  end
end
return reply
