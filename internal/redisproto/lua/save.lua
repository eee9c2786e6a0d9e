-- Writes the header, with the time to live: at least a window and a bucket after the last event, and longer
-- for what is on lease. It is renewed once it is shorter, so nothing is steady beyond that.
if ledger then last = math.max(last, 0) end -- of a window that never had an event
local keep, ttl = window + bucket + longer, nil
if expires < now + keep then
  expires = now + keep + math.floor(keep / 2)
  ttl = true
end
if ttl or text == '' then ttl = math.ceil((expires - now) / 1000) end
local new = struct.pack('<I7I7BI7I7I7I7I7I7I4I4I7',
  ledger and paced or 0, gone, 1, last, admitted, declined, first, oldest, expires, head, size, oldest_admitted)
if full then
  new = new .. struct.pack('<I7I7I4I7I7', oldest_declined, gone_declined, recent, recent_before, recent_last)
end
if ledger then
  new = new .. struct.pack('<I7I7I2', leased, due, slots)
  if text == '' then new = new .. table_text end
end
if text == '' then
  call('SET', key, new, 'PX', ttl)
else
  call('SETRANGE', key, '0', new)
  if ttl then call('PEXPIRE', key, ttl) end
end
