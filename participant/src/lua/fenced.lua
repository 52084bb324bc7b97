-- Writes fields of the control hash of fenced data, and opens it, where one of them says so. What
-- another agent has opened is left as it is.
--
-- KEYS     1 the control hash
-- ARGV     1 count of the fields that go, which follow; then fields and values
-- Returns  {incarnation, number of the last vote}, as they are then
local gone = tonumber(ARGV[1])
if redis.call('HGET', KEYS[1], 'm:inc') == '0' then
  -- The deletion first: it is not refused for memory, and after it nothing is.
  redis.call('HDEL', KEYS[1], '-', unpack(ARGV, 2, 1 + gone))
  if #ARGV > 1 + gone then redis.call('HSET', KEYS[1], unpack(ARGV, 2 + gone)) end
end
return redis.call('HMGET', KEYS[1], 'm:inc', 'm:seq')
