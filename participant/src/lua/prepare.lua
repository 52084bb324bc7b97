-- Prepares branches: checks, locks, runs the ops against an overlay, stages. One phase: applies at once instead of
-- staging. Each branch of the call stands alone: the error of one is its own no.
--
-- ARGV     the head (control.lua), then
--          coordinator's url, count of branches, and for each:
--            txid, public id, mode ('2' phases or '1'), read-only ('1' or ''), modes of its keys ("XXS"; KEYS goes on),
--            kinds of the replies ("IBAE": integer, bytes, array, estimate), all branches of an implicit transaction, packed
--            (else empty), count of ops, count of words of all that follows,
--            count of claims in escrow, and for each (escrow.lua):
--              place of its key, first op from 1, field, name in the lock, delta, least and most that it needs, floor, ceiling
--            and the ops (run.lua)
-- Returns  an array with one of these for each branch:
--   {'y', seq, writes, replies}         yes; writes and replies packed, writes empty if there are none
--   {'c', done}                         one phase: applied, now or before; what its done-marker holds, or would hold if a
--                                       branch that only reads left one
--   {'w', id, txid, key}                a lock is held by a younger transaction
--   {'l', id, txid, key}                a lock is held by an older transaction
--   {'n', code, op or -1, detail}       no
--   {'e', op, comparison, reply}        no: an expectation was false; reply packed
--   {'b', claim, low, high}             no: a counter is between these, and a claim in escrow has no room by any outcome
--   {'z'}                               nothing was done: it is for the next call, this one has done enough
--   {'?'}                               not known: an error came after the first write of one phase
-- and behind them the count of branches that have ended, as text
--
-- Order of the writes: what takes memory goes first and may be refused for it (OOM), before anything is written.
local seq = tonumber(head[2] or '0')
local answers = {}
-- The place in KEYS before the next branch's.
local key_at = 2

-- Markers may only go when the mark that takes their place is kept: an HDEL is not refused for memory, an HSET is.
local mark_kept = true
if marks then mark_kept = type(try('HSET', ctl, unpack(marks))) ~= 'table' end

local function writes_of_branch(b)
  local writes, deletions = {}, {}
  for _, e in ipairs(order) do flush(e, writes, deletions) end
  for _, c in ipairs(b.claims) do writes[#writes + 1] = delta_of(c) end
  for _, write in ipairs(deletions) do writes[#writes + 1] = write end
  return writes
end

-- Looks through the holders of a lock that the branch wants; returns the answer of a conflict.
local function conflict(lock, wanted, txid, id, key)
  if wanted ~= 'X' and sub(lock, 1, 1) == wanted then return nil end
  local answer
  for holder, holder_id in string.gmatch(sub(lock, 3), '([^; ]+) ([^; ]+)[^;]*') do
    if holder ~= txid then
      local met = wait_or_die(id, holder, holder_id, key)
      if met[1] == 'l' then return met end
      answer = answer or met
    end
  end
  return answer
end

-- Applies the writes of one phase. The done-marker is the first write: it takes memory, so that OOM refuses all.
local function apply(b, writes, replies)
  local packed = pack(b.kinds, replies)
  local redo = #writes > 0 and not b.read_only and pack(writes) or ''
  bound_vote(redo, packed)
  if b.read_only then return {'c', packed} end
  check_rights(writes)
  local next_seq = format('%.0f', seq + 1)
  -- With number and writes: any answer about the branch says them, until its log has them.
  packed = packed .. pack(next_seq, redo)
  call('HSET', ctl, 'd:' .. b.txid, packed, 'm:seq', next_seq)
  seq = seq + 1
  b.begun = true
  count_ended(1)
  local patched = false
  for _, write in ipairs(writes) do
    local result = try(unpack(write))
    local place = branch_stars[write]
    if place and type(result) == 'string' then
      replies[place] = result
      patched = true
    end
  end
  if patched then
    packed = pack(b.kinds, replies, next_seq, redo)
    call('HSET', ctl, 'd:' .. b.txid, packed)
  end
  return {'c', packed}
end

-- Stages the branch: record, locks and sequence number in one write.
local function stage(b, writes, replies)
  check_rights(writes)
  local redo = #writes > 0 and pack(writes) or ''
  local all_replies = pack(replies)
  bound_vote(redo, all_replies)
  local packed_replies = redo ~= '' and all_replies or ''
  local keys, values = {}, {}
  for i = 1, #b.modes do
    local key, lock = KEYS[b.first_key + i], b.fields[3 + i]
    keys[i] = key
    values[2 * i - 1] = 'l:' .. key
    local letter = sub(b.modes, i, i)
    if letter == 'X' then
      values[2 * i] = 'X ' .. b.txid .. ' ' .. b.id
    else
      values[2 * i] = (lock and lock .. ';' or letter .. ' ') .. b.txid .. ' ' .. b.id
      if letter ~= 'S' then values[2 * i] = values[2 * i] .. ' ' .. reserved_of(b.claims, key) end
    end
  end
  local next_seq = seq + 1
  local seq_text = format('%.0f', next_seq)
  local record = {1, b.id, b.url, seq_text, keys, b.modes, redo, packed_replies}
  if b.branches ~= '' then record[9] = b.branches end
  call('HSET', ctl, 's:' .. b.txid, pack(record), 'm:seq', seq_text, 'm:expect', expected(), unpack(values))
  seq = next_seq
  return {'y', seq_text, redo, all_replies}
end

-- A prepare that came before: the same yes. A branch without writes kept no replies; under its locks they come again.
local function again(record, b)
  local staged = unpack_record(record)
  local replies = staged[8]
  if staged[7] == '' then
    b.claims = claims(b)
    replies = pack(run(b.op_count, b.kinds))
  end
  return {'y', staged[4], staged[7], replies}
end

local function prepare(b)
  local fields = {'a:' .. b.txid, 's:' .. b.txid, 'd:' .. b.txid}
  for i = 1, #b.modes do fields[3 + i] = 'l:' .. KEYS[b.first_key + i] end
  fields = call('HMGET', ctl, unpack(fields))
  b.fields = fields
  if fields[1] then return {'n', 'fenced', -1, 'an abort came before the prepare'} end
  if fields[3] then
    if b.mode == '1' and fields[3] ~= '' then return {'c', fields[3]} end
    return {'n', 'wrong_state', -1, 'the branch is applied'}
  end
  if fields[2] then return again(fields[2], b) end
  local _, epoch, n = parts(b.txid)
  -- The epoch first: the mark of a later life is above all of an earlier one, and would hide that two coordinators run.
  if less(epoch, epoch_seen) then
    return {'n', 'stale_epoch', -1, 'a later life of the coordinator has been seen: epoch ' .. epoch_seen}
  end
  if below_low_water(epoch, n) then
    return {'n', 'below_low_water', -1, 'everything of this coordinator up to here has ended'}
  end
  local waits
  for i = 1, #b.modes do
    local lock = fields[3 + i]
    local answer = lock
      and conflict(lock, sub(b.modes, i, i), b.txid, b.id, KEYS[b.first_key + i])
    if answer and answer[1] == 'l' then return answer end
    waits = waits or answer
  end
  if waits then return waits end
  b.claims = claims(b)
  local no_room = judge_all(b)
  if no_room then return no_room end
  local replies = run(b.op_count, b.kinds)
  local writes = writes_of_branch(b)
  if b.mode == '1' then return apply(b, writes, replies) end
  return stage(b, writes, replies)
end

local url = ARGV[at]
local branch_count = tonumber(ARGV[at + 1])
at = at + 2
for place = 1, branch_count do
  local b = {
    url = url, txid = ARGV[at], id = ARGV[at + 1], mode = ARGV[at + 2],
    read_only = ARGV[at + 3] == '1', modes = ARGV[at + 4], kinds = ARGV[at + 5],
    branches = ARGV[at + 6], op_count = tonumber(ARGV[at + 7]), first_key = key_at,
  }
  -- An error leaves the cursor anywhere in the branch.
  local after = at + 9 + tonumber(ARGV[at + 8])
  at = at + 9
  ents, order, branch_stars, reply_at = {}, {}, {}, 0
  begin_branch()
  local ok, answer = pcall(prepare, b)
  end_branch()
  -- After its first write a branch of one phase is done, whatever is thrown: that is no refusal, so that it is asked.
  answers[place] = ok and answer or (b.begun and {'?'}) or (answer == LATER and {'z'}) or refusal(answer)
  key_at = key_at + #b.modes
  at = after
end

if collectable > 0 and mark_kept then call('HDEL', ctl, unpack(ARGV, 9, 8 + collectable)) end
answers[branch_count + 1] = expected()
return answers
