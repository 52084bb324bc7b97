-- Says what is kept of branches of implicit transactions, and fences those of which nothing is: a prepare that comes later
-- meets the fence, so that every answer stays true. Like an abort, it is never refused for memory.
--
-- ARGV     the head (control.lua), then the txids
-- Returns  an array with one of these for each txid:
--   {'p'}             it is staged
--   {'a'}             it is applied
--   {'f'}             it is fenced, now or before (or below the low-water mark, which is as good)
begin_outcome()

local function settle(txid)
  local found = call('HMGET', ctl, 's:' .. txid, 'd:' .. txid, 'a:' .. txid)
  if found[2] then return {'a'} end
  if found[1] then return {'p'} end
  local log, epoch, n = parts(txid)
  local is_below = log == log_id and below_low_water(epoch, n)
  if not found[3] and not is_below then fence(txid) end
  return {'f'}
end

local answers = {}
for i = at, #ARGV do answers[#answers + 1] = settle(ARGV[i]) end
return answers
