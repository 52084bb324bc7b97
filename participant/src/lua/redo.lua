-- Applies committed branches whose votes this data lost, from the writes that the log kept. Runs on fenced data only: the
-- head's incarnation is 0. Like a commit it is never refused for memory, and done again it does nothing.
--
-- ARGV     the head (control.lua), then for each branch its txid and its writes, packed
-- Returns  an array with one of these for each branch: {'a', dirty, first error}, as commit.lua says
call('HDEL', ctl, '-')

local answers = {}
for i = at, #ARGV, 2 do
  local txid = ARGV[i]
  if call('HEXISTS', ctl, 'd:' .. txid) == 1 then
    answers[#answers + 1] = {'a', 0}
  else
    call('HSET', ctl, 'd:' .. txid, '')
    answers[#answers + 1] = {'a', apply_writes(ARGV[i + 1])}
  end
end
return answers
