-- Drops branches and fences them: a prepare that comes later meets the fence. Like a commit, it is never refused for
-- memory.
--
-- ARGV     the head (control.lua), then the txids
-- Returns  an array with one of these for each txid:
--   {'f'}             nothing is left of the branch, and it is fenced (or below the low-water mark, which is as good)
--   {'d', done}       it has been applied; what its done-marker holds
-- and behind them the count of branches that have ended, as text
begin_outcome()

local ended = {}

local function abort(txid)
  local found = call('HMGET', ctl, 's:' .. txid, 'd:' .. txid, 'a:' .. txid)
  if found[2] then return {'d', found[2]} end
  if found[1] then
    must_count()
    local gone, kept = {'s:' .. txid}, {'a:' .. txid, ''}
    free_locks(txid, unpack_record(found[1])[5], gone, kept)
    -- The fence first: whoever may not write it may not drop the vote.
    call('HSET', ctl, unpack(kept))
    call('HDEL', ctl, unpack(gone))
    ended[#ended + 1] = txid
    return {'f'}
  end
  local log, epoch, n = parts(txid)
  local is_below = log == log_id and below_low_water(epoch, n)
  if not found[3] and not is_below then fence(txid) end
  return {'f'}
end

local answers = {}
for i = at, #ARGV do answers[#answers + 1] = abort(ARGV[i]) end
count_ended(#ended)
answers[#answers + 1] = expected()
tell_ended(ended)
return answers
