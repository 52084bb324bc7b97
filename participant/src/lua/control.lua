-- The head of every script: whose data this is, and how far its coordinator has come.
--
-- KEYS[1]  the control hash
-- KEYS[2]  the owner: which agent has this Redis for itself (store/owner); then every data key of the call
-- ARGV     1 incarnation that the agent started with
--          2 owner that the agent knows, empty for none
--          3 log id of the coordinator that speaks, or of the branches that are resolved
--          4 its epoch
--          5 epoch of its low-water mark, or empty if the call carries none
--          6 n of its low-water mark
--          7 what m:p:<log id> is to hold of the position of which this call is told; 0 for none
--          8 count of collectable fields, which follow: done-markers and fences below the mark
-- Returns  {'q', incarnation or ''} if the data is not that of the incarnation,
--          {'o', owner or ''} if another agent has it for itself, or had; else as the script's own file says
--
-- The control hash:
--   m:inc          incarnation; 0 while the data is fenced, and m:was says what it was
--   m:seq          number of the last vote
--   m:expect       count of branches that ended in this incarnation, applied or dropped, as every vote and end writes it
--   m:ended        the same, as every end adds to it: another number is a hole in the history (store/whole.rs)
--   m:run          life of the server for which what it had loaded was verified
--   m:c:<log id>   "<highest epoch> <low-water epoch> <low-water n>"
--   m:n:<log id>   "<epoch> <nonce>" of the newest life of the log that was heard, and behind it
--                  "<position> <mark> <seal>" of what it said then, where it was sealed (life.lua)
--   m:p:<log id>   "<position> <epoch>": highest position in the log that was told of with
--                  something that ended a branch, and the life that told it; and behind it
--                  "<mark> <seal>" of that life, where it was sealed
--   m:of           the incarnations that it came of, by the repair that opened it
--   m:r:<log id>   incarnation that the log knew when the last repair took its word
--   l:<key>        "X <txid> <id>" or "S <txid> <id>;<txid> <id>…"; in escrow "E <txid> <id> <reserved>;…" of a string,
--                  "F …" of a hash, where reserved is "<field in hexadecimal>:<delta>:<floor>:<ceiling>,…" (escrow.lua)
--   s:<txid>       staged: pack(version, id, url, seq, keys, modes, writes, replies); of an implicit transaction also all
--                  its branches, packed by themselves: an array of participant, base URL, participant, base URL…
--   d:<txid>       done: pack(kinds, replies, seq, writes) of one phase; those branches of an implicit one; else empty
--   a:<txid>       fence
--   h:<txid>       what an operator decided of the branch by hand (store/by_hand.rs); no script looks at it
--
local log_id = ARGV[3]

local head = call('HMGET', ctl, 'm:inc', 'm:seq', 'm:c:' .. log_id, 'm:expect', 'm:p:' .. log_id)
if head[1] ~= ARGV[1] then return {'q', head[1] or ''} end
local owner = call('GET', KEYS[2]) or ''
if owner ~= ARGV[2] then return {'o', owner} end

local epoch_seen, low_epoch, low_n = '0', '0', '0'
if head[3] then epoch_seen, low_epoch, low_n = match(head[3], '^(%d+) (%d+) (%d+)$') end
-- Fields and values that this call keeps of the log.
local marks = nil
if less(epoch_seen, ARGV[4]) then
  epoch_seen = ARGV[4]
  marks = true
end
if ARGV[5] ~= '' and (less(low_epoch, ARGV[5]) or (low_epoch == ARGV[5] and less(low_n, ARGV[6]))) then
  low_epoch, low_n = ARGV[5], ARGV[6]
  marks = true
end
if marks then marks = {'m:c:' .. log_id, epoch_seen .. ' ' .. low_epoch .. ' ' .. low_n} end
if less(match(head[5] or '0', '^%d+'), match(ARGV[7], '^%d+')) then
  marks = marks or {}
  marks[#marks + 1] = 'm:p:' .. log_id
  marks[#marks + 1] = ARGV[7]
end

local collectable = tonumber(ARGV[8])
at = 9 + collectable

-- Whether a branch of the log that speaks is below its low-water mark.
local function below_low_water(epoch, n)
  return less(epoch, low_epoch) or (epoch == low_epoch and less(n, low_n))
end

-- The log id, epoch and n of a txid.
local function parts(txid) return match(txid, '^([^.]+)%.(%d+)%.(%d+)%.') end

-- The lock without this holder: its new value, false if nothing is left of it, nil if the holder does not hold it.
local function without(lock, txid)
  if not lock then return nil end
  if sub(lock, 1, 1) == 'X' then
    if match(lock, '^X (%S+) ') == txid then return false end
    return nil
  end
  local rest, found = {}, nil
  for holder, more in string.gmatch(sub(lock, 3), '([^; ]+) ([^;]+)') do
    if holder == txid then
      found = true
    else
      rest[#rest + 1] = holder .. ' ' .. more
    end
  end
  if not found then return nil end
  if #rest == 0 then return false end
  return sub(lock, 1, 2) .. table.concat(rest, ';')
end

-- The first writes of an outcome. After an HDEL nothing of a script is refused for memory. Markers
-- go only when the mark that takes their place is kept; whoever may not keep it may still fence.
-- Returns whether it is kept.
local function begin_outcome()
  call('HDEL', ctl, '-')
  local kept = not marks or type(try('HSET', ctl, unpack(marks))) ~= 'table'
  if kept and collectable > 0 then call('HDEL', ctl, unpack(ARGV, 9, 8 + collectable)) end
  return kept
end

-- Fences a branch of which nothing is kept. A user who has lost HSET has voted for nothing since,
-- and whoever asks is to hear so: by another command, if that is left.
local function fence(txid)
  local said = try('HSET', ctl, 'a:' .. txid, '')
  if type(said) == 'table' then call('HSETNX', ctl, 'a:' .. txid, '') end
end

-- Adds to `gone` the fields that a branch's end deletes, and to `kept` the fields and values of locks that others share.
-- The owner of every lock is compared first: a lock that is not this branch's stays.
local function free_locks(txid, keys, gone, kept)
  local count = #keys
  if count == 0 then return end
  local fields = {}
  for i = 1, count do fields[i] = 'l:' .. keys[i] end
  local locks = call('HMGET', ctl, unpack(fields))
  for i = 1, count do
    local rest = without(locks[i], txid)
    if rest then
      kept[#kept + 1] = fields[i]
      kept[#kept + 1] = rest
    elseif rest == false then
      gone[#gone + 1] = fields[i]
    end
  end
end

-- How many branches have ended; as text, for a vote to write down.
local end_count = tonumber(head[4] or '0')
local function expected() return format('%.0f', end_count) end

-- Why no end can be counted, if none can; asked before the first end of a call. An end that is not
-- counted would look like a hole in the data.
local counts = false
local function uncounted()
  local result = counts or try('HINCRBY', ctl, 'm:ended', 0)
  counts = type(result) ~= 'table'
  return not counts and result.err or nil
end

-- The same, where a refusal has no words of its own: as an error, so that the call is made again.
local function must_count()
  local why = uncounted()
  if why then error(why, 0) end
end

-- Counts branches that end: added to one count, written as the other.
local function count_ended(count)
  if count == 0 then return end
  end_count = end_count + count
  call('HSET', ctl, 'm:expect', expected())
  call('HINCRBY', ctl, 'm:ended', count)
end

-- Tells the agents that share this Redis which branches have ended (store/ended.rs). They need not hear it; and a user who
-- may not publish is no reason to refuse an outcome.
local function tell_ended(txids)
  if #txids > 0 then try('PUBLISH', ctl .. ':ended', table.concat(txids, ' ')) end
end

-- Whether a write failed because its key has expired since the vote, as the branch says that it may. Of all writes only
-- LSET needs its key to be there.
local function has_expired(write, writes, err)
  if write[1] ~= 'LSET' or not match(err, 'no such key') then return false end
  for _, other in ipairs(writes) do
    if other[1] == 'PEXPIREAT' and other[2] == write[2] then return true end
  end
  return false
end

-- Applies the packed writes of a branch, but for so many that were applied before. Returns how many met data of another
-- type, and the first error; and if Redis refuses a write: its number, what it said, and all writes. Nothing is done behind
-- that one: a branch is applied to its end, or goes on from there. What the user may not do is
-- found before the first write, so that nobody sees half a branch.
local function apply_writes(packed, done)
  local dirty, first_error = 0, nil
  if packed == '' then return 0 end
  local writes, from = unpack_record(packed), 1 + (done or 0)
  for i = from, #writes do
    local why = denied(writes[i])
    if why then return 0, nil, from, 'NOPERM ' .. why, writes end
  end
  for i = from, #writes do
    local write = writes[i]
    local result = try(unpack(write))
    local err = type(result) == 'table' and result.err
    if err and not has_expired(write, writes, err) then
      if not is_of_data(err) then return dirty, first_error, i, err, writes end
      dirty = dirty + 1
      first_error = first_error or err
    end
  end
  return dirty, first_error
end

-- The answer for a branch whose writes were refused from one on.
local function refused(at_write, err, writes)
  local detail = err
  if at_write > 1 then
    detail = err .. ' (' .. (at_write - 1) .. ' of ' .. #writes .. ' writes are applied; the others follow)'
  end
  return {'n', refusal_code(err) or 'redis_refuses', -1, detail}
end
