-- The table of holders as it is, if it is not there yet: mostly it came with the header.
if not table_text then
  table_text = HEADER <= #text and string.sub(text, FIXED + 1, HEADER) or call('GETRANGE', key, FIXED, HEADER - 1)
end
if #table_text ~= SLOT * slots then error(NOT_A_WINDOW, 0) end
