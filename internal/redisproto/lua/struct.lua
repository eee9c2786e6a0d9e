-- What the scripts need of the library struct, for servers whose Lua does not have it. Redis and Valkey do;
-- some servers for tests do not. It is put before a script once a server has said so.
local struct = {}

function struct.unpack(format, text, at)
  local values, from = {}, at or 1
  for bytes in string.gmatch(format, '[IB](%d?)') do
    local value = 0
    bytes = tonumber(bytes) or 1
    for i = from + bytes - 1, from, -1 do
      value = value * 256 + string.byte(text, i)
    end
    values[#values + 1] = value
    from = from + bytes
  end
  return unpack(values) -- 16 at most
end

function struct.pack(format, ...)
  local bytes, arguments, n = {}, {...}, 0
  for size in string.gmatch(format, '[IB](%d?)') do
    n = n + 1
    local value = arguments[n]
    for _ = 1, tonumber(size) or 1 do
      bytes[#bytes + 1] = string.char(value % 256)
      value = math.floor(value / 256)
    end
  end
  return table.concat(bytes)
end
