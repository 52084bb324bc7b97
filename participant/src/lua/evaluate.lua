-- Says what the ops of branches come to, and keeps nothing. The agent that owns the Redis has their
-- locks in its memory, so that what is read here stays true until it keeps the answer, and stays
-- there with it. Each branch of the call stands alone: the error of one is its own no.
--
-- KEYS[1]  the control hash; then every data key of the call
-- ARGV     count of branches, and for each:
--            kinds of the replies,
--            what is asked of it if it comes to a yes: '' nothing; 'r' whether its writes may be
--            made and kept; 'm' also whether there is memory for that,
--            count of its writes in escrow, and for each its command and its key,
--            count of ops, count of words of all that follows, and the ops (run.lua)
-- Returns  an array with one of these for each branch:
--   {'y', writes, replies, deletions, stars}
--                                   yes; writes and replies packed, writes empty if there are none;
--                                   how many deletions they end in; for each XADD * its place among
--                                   the writes and that of its op, both from 0
--   {'n', code, op or -1, detail}   no
--   {'e', op, comparison, reply}    no: an expectation was false; reply packed
--   {'z'}                           it is for the next call, this one has done enough

-- Why nothing can be kept: asked with the first write of the call, because behind it Redis refuses
-- nothing for memory.
local kept
local function keeps()
  if kept == nil then
    local first = try('HSET', ctl, '-', '')
    kept = not (type(first) == 'table' and first.err) or first.err
    if kept == true then call('HDEL', ctl, '-') end
  end
  if kept == true then return end
  return refusal_code(kept) or 'redis_refuses', 'Redis refuses HSET: ' .. kept
end

local function check_kept(writes)
  local code, detail = keeps()
  if not code then code, detail = lacks_right(writes) end
  if not code then return end
  reply_at = 0
  refuse(code, detail)
end

local function evaluate(op_count, kinds, asks, in_escrow)
  local replies = pack(run(op_count, kinds))
  local writes, deletions = {}, {}
  for _, e in ipairs(order) do flush(e, writes, deletions) end
  local stars = {}
  for place, write in ipairs(writes) do
    local op = branch_stars[write]
    if op then
      stars[#stars + 1] = place - 1
      stars[#stars + 1] = op - 1
    end
  end
  for _, write in ipairs(deletions) do writes[#writes + 1] = write end
  local check = asks == 'm' and check_kept or check_rights
  if asks ~= '' then check(writes) end
  if asks ~= '' and #in_escrow > 0 then check(in_escrow) end
  local redo = #writes > 0 and pack(writes) or ''
  bound_vote(redo, replies)
  return {'y', redo, replies, #deletions, stars}
end

local answers = {}
at = 2
for place = 1, tonumber(ARGV[1]) do
  local kinds, asks, in_escrow = ARGV[at], ARGV[at + 1], {}
  for write = 1, tonumber(ARGV[at + 2]) do
    in_escrow[write] = {ARGV[at + 3], ARGV[at + 4]}
    at = at + 2
  end
  local op_count = tonumber(ARGV[at + 3])
  -- An error leaves the cursor anywhere in the branch.
  local after = at + 5 + tonumber(ARGV[at + 4])
  at = at + 5
  ents, order, branch_stars, reply_at = {}, {}, {}, 0
  begin_branch()
  local ok, answer = pcall(evaluate, op_count, kinds, asks, in_escrow)
  end_branch()
  answers[place] = ok and answer or (answer == LATER and {'z'}) or refusal(answer)
  at = after
end
return answers
