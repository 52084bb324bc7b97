-- Fences data that is not what it should be: its incarnation becomes 0, which no script and no owner runs against, so that
-- it changes no more before it is resynchronised, whichever agents come and go.
--
-- KEYS     1 the control hash, 2 the owner
-- ARGV     1 the incarnation that was found, empty for none
-- Returns  1 if the data is fenced now, or was before; 0 if it is other data by now
local found = redis.call('HGET', KEYS[1], 'm:inc') or ''
if found == '0' then return 1 end
if found ~= ARGV[1] then return 0 end
-- The deletion first: it is not refused for memory, and after it nothing is.
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], 'm:was', found, 'm:inc', '0')
return 1
