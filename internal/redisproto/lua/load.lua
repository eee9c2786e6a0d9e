-- The part of the window of key that is looked at most, or what is wrong with it.
--
-- A window is one string: a header of 72 bytes under Absolute, of 104 under Suppressed, and the log of its
-- closed groups, 21 bytes each. That of the Hybrid provider has a header of 120 bytes, and before the log a
-- table of its holders, 43 bytes each. All of it is whole numbers, little-endian, of 7 bytes where no other
-- size is given. Times are microseconds since 1970 by the server's clock. "Running" counts are those of
-- package window: all that was recorded up to some point, since the log began.
--
-- Nothing in a window depends on the options of who has written it: instances with another bucket, hard limit
-- factor or sync interval, and the version before this one, share it. The bucket is that of the call, as the
-- capacity is: the newest group takes events for so long as the caller's bucket says, and expires a window
-- after its last event in any case. So every event is counted for at least a window, whoever has recorded it,
-- which is what the bound needs; and for less than a window and the largest bucket in use.
--
--    0  paced        0, but in a ledger: see turns    57  head             4 bytes; the oldest live group in the log
--                                                     61  size             4 bytes; groups in the log, dead ones too
--    7  gone         the admitted that expired        65  oldest_admitted  running, up to the end of group head
--   14  version      1 byte                                                Suppressed only:
--   15  last         the last event                   72  oldest_declined  running, up to the end of group head
--   22  admitted     running, up to now               79  gone_declined    the declined that expired
--   29  declined     running, up to now               86  recent           4 bytes; the oldest group in the recent part
--   36  first        of the newest group              90  recent_before    running, observed, before that group
--   43  oldest       last event of group head         97  recent_last      last event of that group, 0 if it is the newest
--   50  expires      when the Redis key does
--
--                                                   The Hybrid provider only:
--  104  leased       on lease, all holders together  118  slots            2 bytes; in the table
--  111  due          when the first lease ages out
--
--   120 + 43 i       holder i: its name, 8 bytes, zeros if there is none; seq of its last message, 5 bytes; turns, 2 bytes; what it
--                    has on lease, and until when; what it has settled, admitted and declined. Under Absolute it
--                    declines nothing; the last is what it has admitted from its lease and not settled. So it is
--                    under Suppressed if turns is KEEPS. From TURNS on, the last is what the holder was granted in
--                    turns, and turns less TURNS is what it wants, in units. The version before has 7 bytes for
--                    seq; and for paced another instant, mostly now.
--   header + 21 i    group i: last event, admitted and declined, running, up to its end; the string ends with the log
--
-- The newest group is not in the log until another follows it. If the log has no live group, oldest is NONE.
local now = clock
local text = redis.pcall('GETRANGE', key, '0', LAST_BYTE)
local fault, gone, version, last, admitted
local paced = 0 -- when all is due that was granted in turns, or when a holder wanted something last
local declined, first, oldest, expires, head, size, oldest_admitted = 0, 0, NONE, 0, 0, 0, 0
local steady = false -- Is there nothing to do but to join the newest group?
if not ledger and #text == HEADER or ledger and #text >= FIXED then
  paced, gone, version, last, admitted, declined, first, oldest, expires, head, size, oldest_admitted =
    struct.unpack('<I7I7BI7I7I7I7I7I7I4I4I7', text)
  steady = first <= last and last <= now and now < first + bucket and now < oldest + window and now + window + bucket < expires
  if version ~= 1 or gone > admitted or admitted > MOST_EVER or size > MOST_GROUPS then fault = NOT_A_WINDOW end
elseif text ~= '' then
  fault = text.err or NOT_A_WINDOW -- a string has no err
end
if ledger then
  HEADER, leased, due, slots, table_text = FIXED, 0, NONE, 0, nil
  if text ~= '' and not fault then
    leased, due, slots = struct.unpack('<I7I7I2', text, 105)
    if leased > NONE then fault = NOT_A_WINDOW end
    HEADER = FIXED + SLOT * slots
  end
end
