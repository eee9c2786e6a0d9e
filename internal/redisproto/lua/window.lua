-- The window as it is now: what has expired is forgotten. Changes stay in variables until save.lua, but for
-- the log.

window, bucket = window + 0, bucket + 0
local oldest_declined, gone_declined, recent, recent_before, recent_last = 0, 0, 0, 0, 0

-- A clock that steps back stands still. If it steps back by more than a window, what is there counts from
-- now.
if text == '' then last = -window end
local stale = last > now + window
if last > now and not stale then now = last end

local live = now - last < window
if full and (live or ledger and text ~= '') then
  oldest_declined, gone_declined, recent, recent_before, recent_last = struct.unpack('<I7I7I4I7I7', text, 73)
end
if live then
  if stale then
    head, oldest, first, last = size, NONE, now, now
  elseif oldest <= now - window then
    -- Mostly one group expires at a time.
    gone, gone_declined, head = oldest_admitted, oldest_declined, head + 1
    if head < size then
      local from = HEADER + GROUP * head
      oldest, oldest_admitted, oldest_declined =
        struct.unpack('<I7I7I7', call('GETRANGE', key, from, from + GROUP - 1))
      if oldest <= now - window then
-- include search.lua
        head, oldest, oldest_admitted, oldest_declined = search(head + 1, function(at) return at > now - window end)
        local _
        _, gone, gone_declined = group(head - 1)
      end
    else
      oldest, oldest_admitted, oldest_declined = NONE, 0, 0
    end
  end
  -- A group that was settled to nothing does not count, so a window may be empty before its last event has
  -- expired.
  live = admitted ~= gone or declined ~= gone_declined
end
if live then
  if recent < head then recent, recent_before, recent_last = head, gone + gone_declined, head < size and oldest or 0 end
elseif ledger and text ~= '' then
  -- All has expired, but running counts go on.
  gone, gone_declined, head, oldest, oldest_admitted, oldest_declined = admitted, declined, size, NONE, 0, 0
  recent, recent_before, recent_last = head, gone + gone_declined, 0
else
  admitted, declined, gone, gone_declined, head, size, oldest = 0, 0, 0, 0, 0, 0, NONE
  recent, recent_before, recent_last = 0, 0, 0
end

-- What contradicts itself is not ours, however much it looks like it. Nothing may be decided by it, so this
-- ends the run.
if declined > MOST_EVER or live and (gone > admitted or admitted - gone > NONE / 4 or gone_declined > declined or declined - gone_declined > NONE / 4
  or first > last or last > now or head > size or (head == size) ~= (oldest == NONE) or oldest ~= NONE and (oldest > last or oldest_admitted < gone or oldest_admitted > admitted
    or oldest_declined < gone_declined or oldest_declined > declined)
  or recent > size or recent_before > admitted + declined or full and recent_before < gone + gone_declined) then
  error(NOT_A_WINDOW, 0)
end
