-- What every script begins with. full says whether windows also know what was declined, as those of
-- Suppressed do; ledger whether they are those of the Hybrid provider, which also know what is on lease.
--
-- ARGV[1]  window, µs       ARGV[2]  bucket, µs
local call = redis.call
local window, bucket = ARGV[1] + 0, ARGV[2] + 0
local time = call('TIME')
local clock = time[1] * 1000000 + time[2]
local NONE = 9007199254740992 -- 2^53
local HEADER, GROUP, LAST_BYTE = 72, 21, '71' -- the log begins behind HEADER bytes
local MOST_GROUPS = 16777216 -- with more, a string would be longer than Redis allows
local MOST_EVER = NONE / 4 * 3 -- of what a running count can be: where they begin again at 0, see open.lua
if full then HEADER, LAST_BYTE = 104, '103' end
local TURNS, KEEPS = 32768, 1
local FIXED, SLOT, NOBODY = 120, 43, '\0\0\0\0\0\0\0\0'
local leased, due, slots, table_text
local longer = 0 -- than a window and a bucket, to keep a key
if ledger then LAST_BYTE = '291' end -- with the first slots
local NOT_A_WINDOW = 'NOTAWINDOW the key holds a string that is not a window of this version'
