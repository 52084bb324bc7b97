-- Runs the commands of a round, as an EXEC does, where an EXEC cannot: where a field is to hold
-- what a command of the same round says, or where Redis refuses some commands and not others. It
-- knows nothing of the protocol: the agent that owns the Redis has decided what is written.
--
-- KEYS[1]  the control hash
-- KEYS[2]  the owner; then every data key of the call
-- ARGV     incarnation, owner, '1' if it is refused where there is no memory,
--          count of long words, and for each: count of its pieces, pieces,
--          count of commands, and for each: count of words, and behind it " <place>:<long word>"
--          for each word that is a long one; words,
--          count of fields, and for each: its name, the beginning of its value, count of results,
--          and for each: which command's it is, from 1, and how the value goes on behind it; what
--          a value is made of is said by which long word it is
-- Returns  {'q', incarnation or ''} if the data is not that of the incarnation,
--          {'o', owner or ''} if another agent has it for itself, or had,
--          {'r', code, -1, detail} if Redis refuses, and nothing was done; else
--          {'d', what each command said}
local incarnation = call('HGET', ctl, 'm:inc')
if incarnation ~= ARGV[1] then return {'q', incarnation or ''} end
local owner = call('GET', KEYS[2]) or ''
if owner ~= ARGV[2] then return {'o', owner} end

local function counted()
  at = at + 1
  return tonumber(ARGV[at - 1])
end

at = 4
local long_words = {}
for place = 1, counted() do
  local first, count = at + 1, tonumber(ARGV[at])
  at = first + count
  long_words[place] = table.concat(ARGV, '', first, at - 1)
end

local commands = {}
for place = 1, counted() do
  local words, long = match(ARGV[at], '^(%d+)(.*)$')
  local command = {unpack(ARGV, at + 1, at + tonumber(words))}
  for word, of in string.gmatch(long, '(%d+):(%d+)') do
    command[tonumber(word)] = long_words[tonumber(of)]
  end
  commands[place] = command
  at = at + 1 + #command
end

-- Behind the first write of a script Redis refuses nothing for memory.
local first = ARGV[3] == '1' and try('HSET', ctl, '-', '') or try('HDEL', ctl, '-')
if type(first) == 'table' and first.err then
  return {'r', refusal_code(first.err) or 'redis_refuses', -1, first.err}
end
if ARGV[3] == '1' then call('HDEL', ctl, '-') end
local code, why = lacks_any(commands)
if code then return {'r', code, -1, why} end

local said = {}
for place, command in ipairs(commands) do said[place] = try(unpack(command)) end

for _ = 1, counted() do
  local field, value = ARGV[at], long_words[tonumber(ARGV[at + 1])]
  local results = tonumber(ARGV[at + 2])
  at = at + 3
  for _ = 1, results do
    local result = said[tonumber(ARGV[at])]
    -- A command that Redis did not take has said nothing that is kept.
    local rest = long_words[tonumber(ARGV[at + 1])]
    value = value .. pack(type(result) == 'string' and result) .. rest
    at = at + 2
  end
  call('HSET', ctl, field, value)
end
return {'d', said}
