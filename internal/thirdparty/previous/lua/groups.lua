-- Appends the live groups to the reply: now, gone, gone, and the groups as one string; of more than 128,
-- neighbours taken together.
local groups, few = {}, math.ceil((size - head) / 128)
if few == 1 then
  groups[1] = call('GETRANGE', key, HEADER + GROUP * head, HEADER + GROUP * size - 1)
elseif few > 1 then
  for i = size - 1, head, -few do
    table.insert(groups, 1, (call('GETRANGE', key, HEADER + GROUP * i, HEADER + GROUP * i + GROUP - 1)))
  end
end
groups[#groups + 1] = struct.pack('<I7I7I7', last, admitted, declined)
reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = now, gone, gone_declined, table.concat(groups)
n = n + 4
