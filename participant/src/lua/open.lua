-- Opens fenced data after its repair.
--
-- KEYS     1 the control hash
-- ARGV     1 the new incarnation, 2 the number of the last vote, 3 … further fields and values: m:of, m:r:<log id>
-- Returns  {incarnation, number of the last vote}: these, or those that another agent was faster with
local inc = redis.call('HGET', KEYS[1], 'm:inc')
if inc == '0' then
  redis.call('HDEL', KEYS[1], 'm:was')
  redis.call('HSET', KEYS[1], 'm:inc', ARGV[1], 'm:seq', ARGV[2], unpack(ARGV, 3))
  redis.call('HSET', KEYS[1], 'm:ended', '0', 'm:expect', '0')
end
return redis.call('HMGET', KEYS[1], 'm:inc', 'm:seq')
