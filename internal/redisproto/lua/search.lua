-- Looks into the log. To be included where it is needed: most calls do without, and a function costs them
-- more than it looks.

-- group reads a closed group.
local function group(i)
  local from = HEADER + GROUP * i
  local l, a, d = struct.unpack('<I7I7I7', call('GETRANGE', key, from, from + GROUP - 1))
  if l > last or a > admitted or d > declined or a < gone or d < gone_declined then error(NOT_A_WINDOW, 0) end
  return l, a, d
end

-- search returns the first of the groups low … size−1 for which found holds, and what is in it; or size,
-- NONE, 0, 0. found must hold for all groups after one for which it holds. Doubling steps: the answer is
-- mostly among the first.
local function search(low, found)
  local high, step, l, a, d = size, 1, NONE, 0, 0
  while low < high do
    local i = low + step - 1
    if i >= high then i = math.floor((low + high) / 2) end
    local last_i, admitted_i, declined_i = group(i)
    if found(last_i, admitted_i, declined_i) then
      high, step, l, a, d = i, size, last_i, admitted_i, declined_i
    else
      low, step = i + 1, 2 * step
    end
  end
  return high, l, a, d
end
