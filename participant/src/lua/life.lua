-- Remembers the newest life of a log that was heard, if nobody else has remembered another one meanwhile.
--
-- KEYS     1 the control hash
-- ARGV     1 the incarnation of the data, 2 the field m:n:<log id>, 3 what it holds, empty for nothing, 4 what it is to hold
-- Returns  1 if it holds that now; 0 if something else is there by now; 2 if it is other data
if redis.call('HGET', KEYS[1], 'm:inc') ~= ARGV[1] then return 2 end
if (redis.call('HGET', KEYS[1], ARGV[2]) or '') ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[4])
return 1
