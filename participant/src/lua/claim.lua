-- Makes an agent the owner, if nobody has become it since the agent looked.
--
-- KEYS     1 the control hash, 2 the owner
-- ARGV     1 what the owner key held, empty for nothing; 2 what it is to hold
-- Returns  1 if it holds that now
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[1] then return 0 end
-- The deletion first: it is not refused for memory, and after it nothing is.
redis.call('HDEL', KEYS[1], '-')
redis.call('SET', KEYS[2], ARGV[2])
return 1
