-- Says which branches may end: asked before the machine ends them, because it cannot take that
-- back. Like an end it needs no memory, and it leaves nothing behind.
--
-- KEYS[1]  the control hash; then every data key that the branches write
-- ARGV     count of branches, and for each: 'e' if it is staged and ends, 'f' if nothing is kept of
--          it and it is fenced, empty if nothing is written; count of its writes, and for each its
--          command and its key
-- Returns  an array with {'y'} or {'n', code, -1, detail} for each branch; and behind them the same
--          of what is kept of the logs that speak
local answers = {}
local count = tonumber(ARGV[1])
-- After it nothing is refused for memory.
local first = try('HDEL', ctl, '-')
local refused = type(first) == 'table' and first.err

local function answer(code, detail)
  if code then return {'n', code, -1, detail} end
  return {'y'}
end

local function may_end(kind, writes)
  if refused then
    return answer(refusal_code(refused) or 'redis_refuses', 'Redis refuses HDEL: ' .. refused)
  end
  if kind == 'f' then return answer(lacks({'HSETNX', ctl, 'f', ''})) end
  if kind == 'e' then return answer(lacks_right(writes)) end
  return answer()
end

at = 2
for place = 1, count do
  local kind, left, writes = ARGV[at], tonumber(ARGV[at + 1]), {}
  at = at + 2
  for write = 1, left do
    writes[write] = {ARGV[at], ARGV[at + 1]}
    at = at + 2
  end
  answers[place] = may_end(kind, writes)
end
answers[count + 1] = refused and may_end('e', {}) or answer(lacks(KEEPS))
return answers
