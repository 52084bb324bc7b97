-- Applies staged branches. A commit cannot fail for a reason of the data, and not for memory either: the first write is an
-- HDEL, which Redis does not refuse above maxmemory, and after it nothing of this script is. Redis may refuse a write whose
-- command or key the agent's user has lost: then the branch stays staged, with the writes that are left.
--
-- ARGV     the head (control.lua), then the txids
-- Returns  an array with one of these for each txid:
--   {'a', dirty, first error}    applied, now or before; dirty: writes that met data of another type
--   {'i', dirty, first error}    the same, of an implicit transaction
--   {'n', code, -1, detail}      fenced | branch_lost | below_low_water; or Redis refuses a write
-- and behind them the count of branches that have ended, as text
begin_outcome()

local ended = {}

local function commit(txid)
  local found = call('HMGET', ctl, 's:' .. txid, 'd:' .. txid, 'a:' .. txid)
  if found[2] then return {found[2] == '' and 'a' or 'i', 0} end
  if found[3] then return {'n', 'fenced'} end
  if not found[1] then
    local log, epoch, n = parts(txid)
    if log == log_id and below_low_water(epoch, n) then return {'n', 'below_low_water'} end
    return {'n', 'branch_lost'}
  end
  local why = uncounted()
  if why then return {'n', refusal_code(why) or 'redis_refuses', -1, why} end
  local record = unpack_record(found[1])
  local gone, kept = {'s:' .. txid}, {'d:' .. txid, record[9] or ''}
  -- Before the data: whoever may not write it may not apply anything.
  call('HSET', ctl, kept[1], kept[2])
  local dirty, first_error, at_write, err, writes = apply_writes(record[7])
  if at_write then
    call('HDEL', ctl, kept[1])
    if at_write > 1 then
      local left = {}
      for i = at_write, #writes do left[#left + 1] = writes[i] end
      record[7] = pack(left)
      call('HSET', ctl, gone[1], pack(record))
    end
    return refused(at_write, err, writes)
  end
  free_locks(txid, record[5], gone, kept)
  call('HDEL', ctl, unpack(gone))
  if #kept > 2 then call('HSET', ctl, unpack(kept)) end
  ended[#ended + 1] = txid
  return {record[9] and 'i' or 'a', dirty, first_error}
end

local answers = {}
for i = at, #ARGV do answers[#answers + 1] = commit(ARGV[i]) end
count_ended(#ended)
answers[#answers + 1] = expected()
tell_ended(ended)
return answers
