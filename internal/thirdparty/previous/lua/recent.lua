-- How many were observed in the recent part? The first group in it only moves on. If the newest group has
-- been quiet for so long that it is not in it, which is to be known before it takes events, what is recorded
-- now may bring it back, whole.
if live and recent < size and recent_last <= now - recent_part then
-- include search.lua
  recent, recent_last = search(recent + 1, function(at) return at > now - recent_part end)
  if recent == size then recent_last = 0 end
  local _, a, d = group(recent - 1)
  recent_before = a + d
  steady = false
end
local joined = admitted + declined - recent_before
local seen = quiet and 0 or joined
