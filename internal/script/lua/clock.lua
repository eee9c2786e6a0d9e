-- What every script begins with. full says whether windows are those of Suppressed, which also know what was declined.
--
-- ARGV[1]  window, µs       ARGV[2]  bucket, µs
local call = redis.call
local window, bucket = ARGV[1], ARGV[2] -- numbers from window.lua on
local time = call('TIME')
local clock = time[1] * 1000000 + time[2]
local NONE = 9007199254740992 -- 2^53
local HEADER, GROUP, LAST_BYTE = 72, 21, '71'
if full then HEADER, LAST_BYTE = 104, '103' end
local NOT_A_WINDOW = 'NOTAWINDOW the key holds a string that is not a window of this version'
