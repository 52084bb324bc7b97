-- Runs the ops of a branch, as they stand in ARGV:
--   for each op: handler, count of arguments, arguments,
--     count of comparisons, and for each: its sign and its operand (none for 'N' 'M' 'E' 'e')
-- The kinds of the replies are a letter for each op: "IBAE": integer, bytes, array, estimate.
-- A vote carries its writes and its replies in one answer; a larger one could never be delivered.
local function bound_vote(writes, replies)
  if #writes > REPLY_BYTES_MAX then refuse('too_large', 'the writes are too large') end
  if #replies > REPLY_BYTES_MAX then refuse('reply_too_large', 'the replies are too large') end
end

-- Compares two numbers as text: -1, 0 or 1; nil if one is none.
local function compare(a, b)
  if is_int64(a) and is_int64(b) then
    if a == b then return 0 end
    return int_less(a, b) and -1 or 1
  end
  if match(a, '%s') or match(b, '%s') then return nil end
  local x, y = tonumber(a), tonumber(b)
  if not x or not y or x ~= x or y ~= y then return nil end
  return x < y and -1 or (x > y and 1 or 0)
end

-- Comparisons without an operand: nil, not nil, there, not there.
local PLAIN = {N = true, M = true, E = true, e = true}

local function holds(sign, operand, reply, kind)
  if sign == 'N' then return reply == false end
  if sign == 'M' then return reply ~= false end
  if sign == 'E' or sign == 'e' then
    local there = reply ~= false
    if kind == 'I' then there = reply ~= 0 and reply ~= '0' end
    if type(reply) == 'table' then there = #reply > 0 end
    return there == (sign == 'E')
  end
  if type(reply) == 'number' then reply = format('%.0f', reply) end
  if sign == '=' then return reply == operand end
  if sign == '!' then return reply ~= operand end
  local order = reply and compare(reply, operand)
  if not order then return false end
  if sign == '>' then return order > 0 end
  if sign == 'G' then return order >= 0 end
  if sign == '<' then return order < 0 end
  return order <= 0
end

-- Runs the ops from ARGV at `at`. Returns the replies.
local function run(op_count, kinds)
  local replies = {}
  for op = 1, op_count do
    reply_at = op
    local handler, n = ops[ARGV[at]], tonumber(ARGV[at + 1])
    local first = at + 2
    at = first + n + 1
    spend(OP_STEPS + n)
    local reply = handler(first, n)
    replied(reply)
    replies[op] = reply
    for _ = 1, tonumber(ARGV[first + n]) do
      local sign = ARGV[at]
      local plain = PLAIN[sign]
      if not holds(sign, not plain and ARGV[at + 1], reply, sub(kinds, op, op)) then
        error({'expect', sign, reply})
      end
      at = at + (plain and 1 or 2)
    end
  end
  return replies
end

-- Refuses before the first write what the agent's user may not do. Where that is only to be tried,
-- a SET comes first, which leaves nothing behind and needs memory: Redis 6.2 asks for that before
-- the first write of a script only.
local function check_rights(writes)
  if not may and #writes == 0 then return end
  local code, detail
  if not may then code, detail = lacks_command('SET') end
  if not code then code, detail = lacks_right(writes) end
  if not code then return end
  reply_at = 0
  refuse(code, detail)
end

-- What an error of a branch's Lua means.
local function refusal(err)
  if type(err) == 'table' and err[1] == 'expect' then
    return {'e', reply_at - 1, err[2], pack(err[3])}
  end
  if type(err) == 'table' and err[1] then return {'n', err[1], reply_at - 1, err[2]} end
  local text = type(err) == 'table' and err.err or tostring(err)
  local code = refusal_code(text)
  if code then return {'n', code, -1, text} end
  return {'n', 'internal', reply_at - 1, text}
end
