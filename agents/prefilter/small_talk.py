"""Recognises messages that only greet, thank, agree or say goodbye, in English as it is typed in chats.

The vocabulary is closed, so a message with any other word is kept. Words that may carry an opinion or a request are
left out on purpose.
"""

import re


def _any_of(*phrases: str) -> str:
    """Returns a pattern for one of the phrases.

    It tries the longest first and never backtracks to a shorter one, so that matching takes linear time.
    """
    longest_first = sorted({phrase for group in phrases for phrase in group.split(",")}, key=len, reverse=True)
    return "(?>" + "|".join(re.escape(phrase.strip()) for phrase in longest_first) + r")(?!\S)"


_GREETING = (
    "hi,hii,hiii,hello,helo,hellol,hallo,hai,hey,heya,hiya,howdy,hi there,hello there,hey there,hai there,greetings,"
    "greetings to you,good day,good morning,good mornng,good mornin,good afternoon,good evening,morning,gm,"
    "how are you,how are you doing,how r u,how are you today,hope you are fine,hope you are well,"
    "hope you are doing well,are you doing ok,wassup,sup"
)
_THANKS = _any_of(
    "thank you,thanks,thank,thank u,thankyou,thank yoou,thank ya,thanks you,thx,thnx,thanx,thnks,tnx,tanks,tank you,"
    "tyanks,ty,tysm,tq,thanking you,many thanks,appreciate it,i appreciate it,much appreciated,appreciate the help,"
    "i appreciate your help,appreciate your help,you have my gratitude,god bless,god bless you,god bless u,"
    "much obliged,i am grateful,i'm grateful,your help is appreciated"
)
#: May follow thanks, to say how much.
_MEASURE = _any_of("so,very,too,much,muc,muhc,match,soo,sooo,a lot,alot,a ton,again,once again,once,indeed,really")
#: May follow "thanks for". Elsewhere these words can be a request.
_CAUSE = _any_of(
    "the,thw,your,yur,ur,u,you,all,this,that,it,everything,kind,kindly,quick,great,good,best,fast,valuable,needful,help,"
    "helping,support,service,information,info,time,assistance,effort,efforts,cooperation,confirming,response,reply,"
    "chatting,understanding,patience,update,answer,me,us,out,with,and,today,order,booking,giving,assisting,so much"
)
_ASSENT = (
    "ok,okk,okay,okey,oki,k,kk,ookay,ye,yes,yeah,yep,yup,ya,yaa,sure,sure thing,of course,ofcourse,"
    "alright,all right,fine,noted,understood,got it,sounds good,works for me,it is ok,its ok,it's ok,its fine,"
    "it is,it's fine,that's fine,thats fine,that is fine,that's ok,thats ok,ok for me,okay for me,ok with me,"
    "fine with me,all good,all clear,all fine,no problem,no worries,you too,you as well,same to you,"
    "you're welcome,you are welcome,my pleasure,welcome,hmm ok"
)
_DECLINE = (
    "no,nope,nopes,nothing,nothing else,nothing else for now,nothing more,no more,no other,anything else,no else,"
    "not really,not so far,that's all,thats all,that is all,thats all for today,that's all for today,that was all,"
    "that's it,thats it,that is it,thats everything,that's everything,thatll be all,that'll be all,that will be all,"
    "thatll do it,that'll do it,that will do it,that will do,all done,no more questions,no other questions,"
    "no questions,no issue,no issues,no other issues,no other queries,no more queries,enough"
)
_FAREWELL = (
    "bye,byee,byeee,byebye,bye bye,goodbye,good bye,nobye,bye now,bye for now,see you,see ya,see you later,"
    "see you soon,see you again,see u,c ya,c u,cya,cya later,take care,good night,goodnight,talk later,"
    "talk to you later,farewell,adios,sayonara,nice seeing you,nice talk,nice talking to you,nice chatting with you,"
    "i'm saying goodbye now,i must say goodbye,it is time to say goodbye,just wanted to say hi"
)
_WISH = (
    r"(?>have|hav) (?>an|a)"
    + "(?> "
    + _any_of("very,nice,good,great,graet,wonderful,awesome,amazing,lovely,pleasant,blessed")
    + ")+ "
    + _any_of("day,evening,night,weekend,one,time,week,afternoon,day ahead,day too,day to you,day for u,day for you")
)
#: May stand beside a courtesy, but is not one by itself.
_FILLER = _any_of(
    "sir,mam,maam,madam,ma'am,mr,mrs,ms,dear,friend,ai,oh,ohh,ah,hm,hmm,mmm,mmmm,um,well,wow,so,and,"
    "then,now,for now,great,perfect,superb,awesome,cool,please,again,to you,today"
)

#: Given names that are not words as well. A name after a courtesy is part of it.
_NAME = _any_of(
    "adam,alan,alex,alexander,alice,alison,amanda,amy,andrea,andrew,andy,angela,anna,anne,anthony,ashley,ben,benjamin,"
    "beth,bob,brandon,brenda,brian,cameron,carl,carlos,carol,caroline,casey,catherine,charles,charlie,charlotte,chloe,"
    "chris,christian,christina,christine,claire,daniel,dave,david,deborah,dennis,diana,donna,drew,dylan,edward,elena,"
    "elizabeth,ella,emily,emma,eric,ethan,eva,fiona,gary,george,greg,hannah,harry,heather,helen,henry,isabella,jack,"
    "jacob,jake,james,jamie,jane,janet,jason,jeff,jennifer,jenny,jeremy,jesse,jessica,joan,joe,john,jonathan,jordan,"
    "jose,joseph,josh,joshua,juan,julia,julie,justin,karen,kate,kathy,katie,kelly,kenneth,kevin,kim,kyle,laura,lauren,"
    "linda,lindsay,lisa,liz,louis,lucas,lucy,luke,maria,marie,martin,mary,mateo,matt,matthew,megan,melissa,michael,"
    "michelle,mike,mohamed,nancy,natalie,nathan,nicole,noah,olivia,oscar,pamela,patricia,patrick,paul,peter,philip,"
    "rachel,rebecca,richard,riley,robert,robin,rory,ryan,sam,samantha,samuel,sandra,sara,sarah,scott,sean,sharon,"
    "simon,sofia,sophia,sophie,spencer,stephanie,stephen,steve,steven,susan,taylor,thomas,tim,tom,tony,tyler,victoria,"
    "vincent,william,zoe"
)

_PHRASE = _any_of(_GREETING, _ASSENT, _DECLINE, _FAREWELL)
_COURTESY = rf"{_WISH}|{_THANKS}(?: {_MEASURE})*+(?: for(?: {_CAUSE})++)?+|{_PHRASE}"
_SMALL_TALK = re.compile(rf"(?:{_FILLER} )*+(?>{_COURTESY})(?: (?>{_COURTESY}|{_FILLER}|{_NAME}))*+")
#: Every word that the pattern can match, taken from the pattern itself, where words consist of a-z and apostrophes.
_VOCABULARY = frozenset(re.findall(r"[a-z']+", _SMALL_TALK.pattern))
_TOKENS = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
#: Marks and pictograms that change nothing. Emoticons, "!!" and "..." carry a tone, which may be the message.
_NEUTRAL_MARKS = re.compile(r"(?:[\s,;:~\-\"\U0001f44b\U0001f64f\U0001f44d]|\.(?!\.)|!(?!.*!))*")


def is_small_talk(message: str) -> bool:
    """Returns whether every word of the message belongs to a courtesy. A question is never one.

    The first unknown word settles it, which in most messages is one of the first three.
    """
    folded = message.casefold().replace("’", "'")
    for token in _TOKENS.finditer(folded):
        if token[0] not in _VOCABULARY:
            return False
    words = " ".join(_TOKENS.findall(folded))
    return _SMALL_TALK.fullmatch(words) is not None and _NEUTRAL_MARKS.fullmatch(_TOKENS.sub("", message)) is not None
