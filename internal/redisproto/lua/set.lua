-- Makes the total of one key what is wanted, if a condition holds. Both strategies.
--
-- KEYS[1]  the window
-- ARGV[1]  window, µs       ARGV[2]  bucket, µs
-- ARGV[3]  condition        on the live total, admitted and declined: Always(), Equal(5), NotEqual(5), Less(5), Greater(5)
-- ARGV[4]  total            that is wanted; below 0, what is to be taken out of it, at most all
-- ARGV[5]  history          Replace, KeepNewest or KeepOldest: which events stay
-- ARGV[6]  kind             a, or s for Suppressed; ha, hs for those of the Hybrid provider
--
-- Reply: what is wrong with the key, a string; or 1 if the condition held, else 0, and the total before.
--
-- Cost: two commands if the condition does not hold; else one for each live group, and one that writes all.

local ledger = string.sub(ARGV[6], 1, 1) == 'h'
local full = ledger or ARGV[6] == 's'
-- include clock.lua

local key = KEYS[1]
-- include load.lua
if fault then return {fault} end
-- include window.lua
-- include search.lua

local have = admitted - gone + declined - gone_declined
local op, n = string.match(ARGV[3], '^(%a+)%((%d*)%)$')
n = tonumber(n .. '.0') -- a whole number beyond 2^63 is not one everywhere
local holds = op == 'Always' or op == 'Equal' and have == n or op == 'NotEqual' and have ~= n
  or op == 'Less' and have < n or op == 'Greater' and have > n
if not holds then return {0, have} end

local total, history = ARGV[4] + 0, ARGV[5]
if total < 0 then total = math.max(0, have + total) end
if ledger then
-- include table.lua
end
if total == 0 then
  if not ledger or slots == 0 then
    call('DEL', key)
  else
    -- The window is empty, as if all had expired; what is on lease stays charged. What holders have settled
    -- is remembered, too: a message that comes again, as its answer was lost, must not bring back what is
    -- gone.
    gone, gone_declined, head, oldest, first, last = admitted, declined, size, NONE, 0, 0
-- include save.lua
  end
  return {1, have}
end

-- muldiv returns floor(a × b ÷ c), for a ≤ c, without numbers beyond 2^53.
local function muldiv(a, b, c)
  local quotient, rest, power = 0, 0, NONE / 2
  while power >= 1 do
    quotient, rest = 2 * quotient, 2 * rest
    if b >= power then b, rest = b - power, rest + a end
    while rest >= c do rest, quotient = rest - c, quotient + 1 end
    power = power / 2
  end
  return quotient
end

-- The live groups as they are, each with its own counts; from here on, those to keep come first.
local groups = {}
if history == 'Replace' or not live then
  groups[1] = {last = now, admitted = 0, declined = 0}
  first = now
else
  local a, d = gone, gone_declined
  for i = head, size do
    local l, upto_a, upto_d = last, admitted, declined
    if i < size then l, upto_a, upto_d = group(i) end
    if upto_a < a or upto_d < d then error(NOT_A_WINDOW, 0) end
    groups[#groups + 1] = {last = l, admitted = upto_a - a, declined = upto_d - d}
    a, d = upto_a, upto_d
  end
end
local from, to, step = 1, #groups, 1
if history == 'KeepNewest' then from, to, step = to, 1, -1 end
local rest = total
for i = from, to, step do
  local g = groups[i]
  local count = g.admitted + g.declined
  local kept = math.min(count, rest)
  g.stays = rest > 0 or total == have -- one that was settled to nothing, too
  if kept < count then
    g.declined = muldiv(g.declined, kept, count)
    g.admitted = kept - g.declined
  end
  rest = rest - kept
end
groups[from].admitted = groups[from].admitted + rest

-- Write those that stay. The newest of them may be one that was closed.
local log = {}
head, size, oldest, oldest_admitted, oldest_declined = 0, 0, NONE, 0, 0
admitted, declined, gone, gone_declined, recent, recent_before, recent_last = 0, 0, 0, 0, 0, 0, 0
local newest
for _, g in ipairs(groups) do
  if g.stays then
    if newest then
      log[#log + 1] = struct.pack('<I7I7I7', newest.last, admitted, declined)
      if #log == 1 then oldest, oldest_admitted, oldest_declined = newest.last, admitted, declined end
    end
    newest = g
    admitted, declined = admitted + g.admitted, declined + g.declined
  end
end
if newest ~= groups[#groups] then first = math.max(newest.last - bucket, 0) end
size, last = #log, newest.last
if not ledger then expires = 0 end -- leases may need the key for longer
if size > 0 then recent_last = oldest end
text = ''
-- include save.lua
if size > 0 then call('APPEND', key, table.concat(log)) end
return {1, have}
