-- The window as it is now: what has expired is forgotten. Changes stay in variables until save.lua, but for the log.

local HEADER, GROUP = 97, 21
local head, size, oldest_admitted, oldest_declined, gone_declined, recent, recent_before, recent_last = 0, 0, 0, 0, 0, 0, 0, 0

-- A clock that steps back stands still. If it steps back by more than a window, what is there counts from now.
local stale = last > now + window
if last > now and not stale then now = last end

local live = now - last < window
if live then
  head, size, oldest_admitted, oldest_declined, gone_declined, recent, recent_before, recent_last =
    struct.unpack('<I4I4I7I7I7I4I7I7', header, 51)
  if stale then
    head, oldest, first, last = size, NONE, now, now
  elseif oldest <= now - window then
-- include search.lua
    local i, l, a, d = search(head + 1, function(at) return at > now - window end)
    if i == head + 1 then
      gone, gone_declined = oldest_admitted, oldest_declined
    else
      local _
      _, gone, gone_declined = group(i - 1)
    end
    head, oldest, oldest_admitted, oldest_declined = i, l or NONE, a or 0, d or 0
  end
  if recent < head then recent, recent_before, recent_last = head, gone + gone_declined, head < size and oldest or 0 end
else
  declined, admitted, gone = 0, 0, 0
end
