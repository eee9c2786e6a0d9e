-- The part of the window of key that is looked at most, or what is wrong with it.
--
-- A window is one string: a header of 65 bytes under Absolute, of 97 under Suppressed, and the log of its closed groups, 21
-- bytes each. All of it is whole numbers,
-- little-endian, of 7 bytes where no other size is given. Times are microseconds since 1970 by the server's clock.
-- "Running" counts are those of package window: all that was recorded up to some point, since the log began.
--
--    0  first        of the newest group            50  head             4 bytes; the oldest live group in the log
--    7  gone         the admitted that expired      54  size             4 bytes; groups in the log, dead ones included
--   14  oldest       last event of group head       58  oldest_admitted  running, up to the end of group head
--   21  expires      when the Redis key does                         Suppressed only:
--   28  version      1 byte                         65  oldest_declined  running, up to the end of group head
--   29  last         the last event                 72  gone_declined    the declined that expired
--   36  admitted     running, up to now             79  recent           4 bytes; the oldest group in the recent part
--   43  declined     running, up to now             83  recent_before    running, observed, before that group
--                                                   90  recent_last      last event of that group, 0 if it is the newest
--
--   header + 21 i    group i: last event, admitted and declined, running, up to its end; the string ends with the log
--
-- The newest group is not in the log until another follows it. If the log has no live group, oldest is NONE.
local now = clock
local text = redis.pcall('GETRANGE', key, '0', LAST_BYTE)
local fault, first, gone, oldest, expires, version, last, admitted
if #text == HEADER then
  first, gone, oldest, expires, version, last, admitted = struct.unpack('<I7I7I7I7BI7I7', text)
  if version ~= 1 then fault = NOT_A_WINDOW end
else
  if text ~= '' then
    fault = text.err or NOT_A_WINDOW -- a string has no err
    text = ''
  end
  first, gone, oldest, expires, last, admitted = 0, 0, NONE, 0, -window, 0
end

-- Is there nothing to do but to join the newest group? Nothing has expired, it is open, and the key lives for long enough.
local steady = now - first < bucket and last <= now and oldest > now - window and expires >= now + window + bucket
