-- Applies committed branches to fenced data: those that are staged by their records, those that the
-- data lost by the writes that the log kept. It is never refused for memory, and done again it does
-- nothing.
--
-- KEYS[1]  the control hash; then every data key of the call
-- ARGV     for each branch its txid, '1' if the data's own count says that it had its writes already
--          (then they fill a hole there), its writes, packed, and its done-marker: empty, but for
--          one phase that its log has not heard of. The last two in pieces, how many and then each:
--          no word may be larger than what the server takes at once
-- Returns  {'q', incarnation or ''} if the data is not fenced; else an array with one of these for
--          each branch: {'a', dirty, first error} if it is applied, now or before; dirty: writes that
--          met data of another type; or {'n', code, -1, detail} if Redis refuses a write. A field
--          p:<txid> keeps how many writes were applied before that.
local incarnation = call('HGET', ctl, 'm:inc')
if incarnation ~= '0' then return {'q', incarnation or ''} end
-- After it nothing of this script is refused for memory.
call('HDEL', ctl, '-')

-- Whether a write failed because its key has expired since the vote, as the branch says that it
-- may. Of all writes only LSET needs its key to be there.
local function has_expired(write, writes, err)
  if write[1] ~= 'LSET' or not match(err, 'no such key') then return false end
  for _, other in ipairs(writes) do
    if other[1] == 'PEXPIREAT' and other[2] == write[2] then return true end
  end
  return false
end

-- Applies the packed writes of a branch, but for so many that were applied before. Returns how many
-- met data of another type, and the first error; and if Redis refuses a write: its number, what it
-- said, and how many there are. Nothing is done behind that one. What the user may not do is found
-- before the first write.
local function apply_writes(packed, done)
  local dirty, first_error = 0, nil
  if packed == '' then return 0 end
  local writes = unpack_record(packed)
  for i = 1 + done, #writes do
    local why = denied(writes[i])
    if why then return 0, nil, i, 'NOPERM ' .. why, #writes end
  end
  for i = 1 + done, #writes do
    local result = try(unpack(writes[i]))
    local err = type(result) == 'table' and result.err
    if err and not has_expired(writes[i], writes, err) then
      if not code_of_data(err) then return dirty, first_error, i, err, #writes end
      dirty = dirty + 1
      first_error = first_error or err
    end
  end
  return dirty, first_error
end

-- The answer for a branch whose writes were refused from one on.
local function refused(at_write, err, count)
  local detail = err
  if at_write > 1 then
    detail = err .. ' (' .. (at_write - 1) .. ' of ' .. count .. ' writes are applied; the others follow)'
  end
  return {'n', refusal_code(err) or 'redis_refuses', -1, detail}
end

local function pieces()
  local first, count = at + 1, tonumber(ARGV[at])
  at = first + count
  return table.concat(ARGV, '', first, at - 1)
end

local function redo(txid, fills, packed, marker)
  local fields = {'d:' .. txid, 'p:' .. txid, 's:' .. txid}
  local found = call('HMGET', ctl, unpack(fields))
  if found[1] then return {'a', 0} end
  if found[3] then
    local record = unpack_record(found[3])
    packed, marker = record[7], record[9] or ''
  end
  -- An end that is not counted would leave the hole.
  if fills then call('HINCRBY', ctl, 'm:ended', 0) end
  -- Before the data: whoever may not write it may not apply anything.
  call('HSET', ctl, fields[1], marker)
  local answer = {'a', apply_writes(packed, tonumber(found[2] or '0'))}
  local at_write = answer[4]
  if at_write then
    call('HDEL', ctl, fields[1])
    call('HSET', ctl, fields[2], at_write - 1)
    return refused(at_write, answer[5], answer[6])
  end
  call('HDEL', ctl, fields[2], fields[3])
  if fills then call('HINCRBY', ctl, 'm:ended', 1) end
  return answer
end

local answers = {}
at = 1
while at <= #ARGV do
  local txid, fills = ARGV[at], ARGV[at + 1] == '1'
  at = at + 2
  answers[#answers + 1] = redo(txid, fills, pieces(), pieces())
end
return answers
