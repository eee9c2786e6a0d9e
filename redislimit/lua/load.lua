-- What every script begins with: the time, and the part of the window that is looked at most.
--
-- A window is one string: a header of 97 bytes, and the log of its closed groups, 21 bytes each. All of it is whole numbers,
-- little-endian, of 7 bytes where no other size is given. Times are microseconds since 1970 by the server's clock.
-- "Running" counts are those of package window: all that was recorded up to some point, since the log began.
--
--    0  declined     running, up to now             50  head             4 bytes; the oldest live group in the log
--    7  last         the last event                 54  size             4 bytes; groups in the log, dead ones included
--   14  admitted     running, up to now             58  oldest_admitted  running, up to the end of group head
--   21  first        of the newest group            65  oldest_declined
--   28  gone         the admitted that expired      72  gone_declined    the declined that expired
--   35  oldest       last event of group head       79  recent           4 bytes; the oldest group in the recent part
--   42  expires      when the Redis key does        83  recent_before    running, observed, before that group
--   49  version      1 byte                         90  recent_last      last event of group recent, 0 if that is the newest
--
--   97 + 21 i        group i: last event, admitted and declined, running, up to its end
--
-- The newest group is not in the log until another follows it. If the log has no live group, oldest is NONE.
--
-- ARGV[1]  window, µs       ARGV[2]  bucket, µs
local call, key = redis.call, KEYS[1]
local window, bucket = ARGV[1] + 0, ARGV[2] + 0
local NONE = 9007199254740992 -- 2^53
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local header = call('GETRANGE', key, '0', '96')
local declined, last, admitted, first, gone, oldest, expires, version = 0, -window, 0, 0, 0, NONE, 0, 1
if header ~= '' then
  if #header == 97 then
    declined, last, admitted, first, gone, oldest, expires, version = struct.unpack('<I7I7I7I7I7I7I7B', header)
  end
  if #header ~= 97 or version ~= 1 then
    return redis.error_reply('NOTAWINDOW the key holds a string that is not a window of this version')
  end
end

-- Is there nothing to do but to join the newest group? Nothing has expired, it is open, and the key lives for long enough.
local steady = last <= now and now - last < window and now - first < bucket and oldest > now - window
  and expires >= now + window + bucket
