-- Remembers what was heard of the lives of a log, if nobody else has remembered something else meanwhile.
--
-- KEYS     1 the control hash
-- ARGV     1 the incarnation of the data; then for each field: its name (m:n:<log id> or m:p:<log id>), what it holds,
--          empty for nothing, what it is to hold
-- Returns  1 if they hold that now; 0 if one holds something else by now; 2 if it is other data
if redis.call('HGET', KEYS[1], 'm:inc') ~= ARGV[1] then return 2 end
for at = 2, #ARGV, 3 do
  if (redis.call('HGET', KEYS[1], ARGV[at]) or '') ~= ARGV[at + 1] then return 0 end
end
for at = 2, #ARGV, 3 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 2]) end
return 1
