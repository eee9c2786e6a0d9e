-- Sees to it that the newest group takes events at now. To be included right before some are recorded.
if not live then
  steady = false
  if gone + gone_declined >= NONE / 4 then -- as below
    admitted, declined, gone, gone_declined = 0, 0, 0, 0
  end
  head, size, oldest, recent, recent_before, recent_last = 0, 0, NONE, 0, gone + gone_declined, 0
  first, live = now, true
  if not ledger then expires = 0 end -- leases may need the key for longer
  text = ''
elseif now - first >= bucket and now > last then -- no two groups end at one instant, whatever the buckets
  if text == '' then -- it was begun in this run, and is not written yet
-- include save.lua
    text = new
  end
  local large = gone + gone_declined >= NONE / 4
  if large or head > 32 and 2 * head > size then
    -- Forget the dead groups of the log. Where running counts have become large, they begin again at 0.
    local log = {}
    if large then
-- include search.lua
      for i = head, size - 1 do
        local l, a, d = group(i)
        log[i - head + 1] = struct.pack('<I7I7I7', l, a - gone, d - gone_declined)
      end
      recent_before = recent_before - gone - gone_declined
      admitted, declined = admitted - gone, declined - gone_declined
      if head < size then
        oldest_admitted, oldest_declined = oldest_admitted - gone, oldest_declined - gone_declined
      end
      gone, gone_declined = 0, 0
    elseif head < size then
      log[1] = call('GETRANGE', key, HEADER + GROUP * head, HEADER + GROUP * size - 1)
    end
    if ledger then text = call('GETRANGE', key, 0, HEADER - 1) end
    call('SET', key, text .. table.concat(log), 'KEEPTTL')
    recent, size, head = recent - head, size - head, 0
  end
  call('APPEND', key, struct.pack('<I7I7I7', last, admitted, declined))
  if head == size then oldest, oldest_admitted, oldest_declined = last, admitted, declined end
  if recent == size then recent_last = last end
  size = size + 1
  first = now
end
last = now
