-- Runs the commands of a round, as an EXEC does, and puts what some of them say into fields of the
-- control hash, which an EXEC cannot. It knows nothing of the protocol: the agent that owns the
-- Redis has decided what is written.
--
-- KEYS[1]  the control hash
-- KEYS[2]  the owner; then every data key of the call
-- ARGV     incarnation, owner, count of commands, and for each: count of words, words;
--          count of fields, and for each: its name, the beginning of its value, count of results,
--          and for each: which command's it is, from 1, and how the value goes on behind it
-- Returns  {'q', incarnation or ''} if the data is not that of the incarnation,
--          {'o', owner or ''} if another agent has it for itself, or had,
--          {'r', code, -1, detail} if Redis refuses, and nothing was done; else
--          {'d', what each command said}
local incarnation = call('HGET', ctl, 'm:inc')
if incarnation ~= ARGV[1] then return {'q', incarnation or ''} end
local owner = call('GET', KEYS[2]) or ''
if owner ~= ARGV[2] then return {'o', owner} end

local commands = {}
at = 4
for place = 1, tonumber(ARGV[3]) do
  local words = tonumber(ARGV[at])
  commands[place] = {unpack(ARGV, at + 1, at + words)}
  at = at + 1 + words
end

local code, why = lacks_right(commands)
if code then return {'r', code, -1, why} end
-- What takes memory comes first: behind the first write Redis refuses nothing for it.
local first = try('HSET', ctl, '-', '')
if type(first) == 'table' and first.err then
  return {'r', refusal_code(first.err) or 'redis_refuses', -1, first.err}
end
call('HDEL', ctl, '-')

local said = {}
for place, command in ipairs(commands) do said[place] = try(unpack(command)) end

for _ = 1, tonumber(ARGV[at]) do
  local field, value, results = ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
  at = at + 3
  for _ = 1, results do
    local result = said[tonumber(ARGV[at + 1])]
    -- A command that Redis did not take has said nothing that is kept.
    value = value .. pack(type(result) == 'string' and result) .. ARGV[at + 2]
    at = at + 2
  end
  call('HSET', ctl, field, value)
end
return {'d', said}
