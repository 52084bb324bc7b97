-- Deletes done-markers and fences that are below the stored low-water mark of their log: those that an agent left behind
-- when it stopped, or that a life of a coordinator left behind when it ended.
--
-- ARGV     the head (control.lua), then fields d:<txid> and a:<txid> of the log that the head names
-- Returns  {'s', count of fields deleted}
-- The mark first: what it covers may go only because a late prepare below it is refused.
if not begin_outcome() then return {'s', 0} end

local gone = {}
for i = at, #ARGV do
  local log, epoch, n = parts(sub(ARGV[i], 3))
  if log == log_id and match(ARGV[i], '^[ad]:') and below_low_water(epoch, n) then
    gone[#gone + 1] = ARGV[i]
  end
end
if #gone == 0 then return {'s', 0} end
return {'s', call('HDEL', ctl, unpack(gone))}
