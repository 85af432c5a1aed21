"""The local analyser's words. English only.

A phrase of several words matches where they follow each other in this order, each at most WINDOW words behind the one
before: "charged twice" also finds "charged me for it twice". Words are lower-case, and every negation ("doesn't",
"cannot") is read as "not". Raise RULES_VERSION with every change here or in agents.local.rules: it is part of the
analysis version, under which cached answers are served.
"""

from schemas.insight import Urgency

RULES_VERSION = 2


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


def _each(starts: str, ends: str) -> str:
    return ",".join(f"{start} {end}" for start in starts.split(",") for end in ends.split(","))


WINDOW = 4

TOPICS = {
    "billing": "bill,billing,invoice,charge,charged,charges,overcharged,fee,fees,payment,pay,paid,price,cost",
    "refund": "refund,refunds,refunded,reimburse,reimbursement,money back,chargeback",
    "bank account": "bank,balance,withdrew,withdrawal,transfer,transferred,debit,atm,pin,card,cards,top-up",
    "delivery": "delivery,deliver,delivered,shipping,shipped,shipment,package,parcel,courier,tracking",
    "returns": "return,returns,returned,exchange,replacement",
    "account": "account,profile,username,sign up,subscription,subscribe,unsubscribe,membership",
    "login": "login,log in,logged out,sign in,password,locked out,verification,2fa,authentication",
    "outage": "outage,offline,unavailable,no service,no signal,is down",
    "technical problem": "bug,error,errors,crash,crashes,crashed,broken,freeze,freezes,glitch,failed,fails,not working",
    "booking": (
        "to book,booking,reserve,reservation,flight,hotel,seat,appointment,schedule,reschedule,viewing,room,table"
    ),
    "order": "order,orders,ordered,cart,checkout,purchase,purchased",
    "security": "fraud,fraudulent,scam,phishing,hacked,stolen,stole,unauthorized,unauthorised,breach",
    "health": "doctor,medicine,medication,symptoms,sick,pain,bleeding,blood,injured",
    "insurance": "insurance,policy,claim",
    "product": "product,quality,feature,features,model,battery,screen,camera,sound,app",
    "staff": "agent,staff,representative,manager,customer service,support team,rude",
    "network": "internet,wifi,wi-fi,router,broadband,connection,network,vpn,dns",
}

#: What must not be overlooked. The first of these with a match is the intent, and has an urgency of its own.
GRAVE_INTENTS = {
    "report_danger": (
        "suicide,suicidal,kill myself,killing myself,end my life,ending my life,take my own life,want to die,"
        "wanna die,not want to live,no reason to live,better off dead,hurt myself,harm myself,self-harm,overdose,"
        "overdosed,ambulance,call 911,call 999,emergency,heart attack,chest pain,chest pains,not breathe,"
        "not breathing,unconscious,seizure,injured,poisoned,food poisoning,on fire,caught fire,catch fire,exploded,"
        "gas leak,smell gas,smells gas,electric shock,carbon monoxide,in danger,death threat,threatened to kill,"
        "assaulted,raped"
    ),
    "threaten_legal_action": (
        "lawsuit,legal action,take to court,you in court,suing,will sue,gonna sue,sue you,my lawyer,my attorney,"
        "our lawyers,a lawyer,my solicitor,small claims"
    ),
    "report_fraud": (
        "fraud,fraudulent,scam,scammed,hacked,stolen,stole,robbed,unauthorized,unauthorised,compromised,jacked,"
        "identity theft,data breach,suspicious activity,suspicious activities,suspicious behavior,"
        "suspicious transaction,suspicious transactions,suspicious transfers,broke into account,missing from account,"
        "that i not do,that i not make,not make withdrawal,not make transaction,not set up debit,frequent transfers,"
        "frequent transfer,strange charge,weird charge,strange transaction,"
        + _each(
            "someone,somebody,thief,crook",
            "withdrew,withdrawn,transferred,transfered,took $,took money,took account,used card,using card,"
            "used account,using account,accessed account,broke into",
        )
        + ","
        + _each(
            "payment,payments,debit,charge,charges,withdrawal,withdraw,transaction,transactions,transfer,purchase",
            "not mine,not make,not made,not remember,not recognise,not recognize,not authorise,not authorize,"
            "not approve",
        )
        + ","
        + _each("not recognise,not recognize", "payment,charge,transaction,debit,withdrawal,transfer")
    ),
    "report_loss": (
        "lost card,lost cards,card lost,lost wallet,wallet lost,lost phone,phone lost,lost purse,card missing,"
        "swallowed card,ate card,not give card back"
    ),
}
GRAVE_URGENCIES: dict[str, Urgency] = {
    "report_danger": "critical",
    "threaten_legal_action": "critical",
    "report_fraud": "high",
    "report_loss": "high",
}
URGENCIES: dict[Urgency, str] = {
    "critical": "bleeding,coughing blood,vomiting blood,lose blood",
    "high": (
        "urgent,urgently,lawyer,attorney,call police,police report,to the police,locked out,outage,charged twice,"
        "double charged,paid twice,suspicious,allergic,numb,losing money,losing thousands"
    ),
    "medium": (
        "problem,problems,issue,issues,broken,error,errors,fails,failed,failing,refund,complaint,crash,crashed,"
        "crashes,damaged,declined,reverted,rejected,blocked,not work,not working,stopped working,is down,are down,"
        "been down,went down,pay twice,money back,overcharged,wrong item,wrong order,wrong address,waiting,still not,"
        "not arrived,not received,never arrived,never received,not come,not show,not get through,not give,"
        "not verified,not log in,not sign in,not access,not connect,not load,keeps,duplicate,missing,delayed,late,"
        "soon as possible,sick,pain,headache,vomiting,cancel,give up,do your job,not deposit"
    ),
}
#: Makes a request urgent: "right now" alone may be about the weather.
DEMANDS = "asap,immediately,right now,right away,this instant,do it now,done now"

#: Of these the one that is said most and first decides.
INTENTS = {
    "ask_status": "where is,where's,status,when will,when can,check balance,arrive yet,here by now,not received yet",
    "request_refund": "refund,refunds,money back,reimburse,reimbursement,chargeback,transaction reversed",
    "cancel": "cancel,cancellation,unsubscribe,terminate,close account",
    "return_item": "return item,return order,return this,return it,send it back,exchange it",
    "report_problem": (
        "problem,problems,issue,error,errors,broken,fix my,to fix,get fixed,need fixed,be fixed,not work,not working,"
        "stopped working,crash,crashes,crashed,fails,failed,failing,bug,outage,is down,are down,been down,went down,"
        "not arrived,not received,never arrived,never received,not log in,not sign in,not access,not connect,not load,"
        "wrong item,wrong order,wrong address,unable to,damaged,declined,reverted,rejected,charged twice,"
        "not get through,not give,not verified,not deposit,duplicate,defective,freezes"
    ),
    "complain": (
        "complaint,to complain,i complain,unacceptable,terrible,worst,awful,disgusting,ridiculous,useless,"
        "waiting forever,do your job,rude,rip off,fed up"
    ),
    "request_change": (
        "change my,change the billing,change the address,change details,change date,update my,update details,"
        "removing person,remove from,add to my"
    ),
    "make_booking": (
        "to book,book a,book an,book me,book the,book for,book it,booking,reserve,reserved,reservation,appointment,"
        "appoint,appt,schedule,viewing,view apartment,see apartment,stay at,table at,would like flight,see doctor"
    ),
    "place_order": (
        "to order,want buy,like buy,need buy,want purchase,like purchase,need purchase,buy shares,sell shares"
    ),
}
#: What a customer asks for counts twice as much as what is wrong.
FAULTS = ("report_problem", "complain")
#: Words that only count where no intent is named.
REQUESTS = (
    "i need,i want,i'd like,i would like,can you,could you,would you,need help,please,i'm looking for,interested in,"
    "apply for,in search,send me,help me"
)
QUESTIONS = "how do i,how can i,how do you,does anyone,anyone know,do you know,is there"
QUESTION_WORDS = _set(
    "how what whats what's when where why who which can could is are do does did will would should anyone"
)

#: VADER gives these a valence, but in talk with a company they are courtesy, requests and everyday things.
NO_FEELING = _set(
    "help helps helping thanks thank thx ty thankyou please pls plz kindly like likes no yes yeah yep yup nah ok okay "
    "k kk sure alright well want number sorry friend friends support supported credit hope hoping play playing played "
    "top cancel cancelled pay charge charged charges create created creating forget forgot forgotten free security "
    "secure allow stop stops kind care dear save leave interested fresh restore solution certain join accept accepted "
    "true resolve block reach share shares shared sharing chance matter hand original party lower low clean cut value "
    "ability active ready giving shoot kill creative legal welcome warning greetings responsible alert straight fire "
    "suspend loan loans debt natural stock risk protect safe safely trust god feeling definitely honest honestly "
    "cheers huge important trick alone determined excuse consent interest fund funds assets treat special lol haha "
    "heh problem problems error errors bug issue emergency police fraud"
)
#: Valences that VADER does not have, on its scale from -4 to 4.
FEELINGS = {
    "annoyed": -2.0, "bitch": -2.5, "crappy": -2.5, "cumbersome": -1.5, "darn": -1.5, "drawback": -1.5,
    "drawbacks": -1.5, "error-prone": -2.0, "flaw": -1.5, "flaws": -1.5, "gripe": -1.5, "jeez": -1.2,
    "overpriced": -2.0, "quibble": -1.5, "rude": -2.5, "slow": -1.2, "unreliable": -2.0,
    "cool": 1.5, "exceeded": 2.0, "painless": 2.0, "recommend": 2.0, "yay": 2.5,
    "\N{THUMBS DOWN SIGN}": -2.5, "\N{POUTING FACE}": -3.0, "\N{ANGRY FACE}": -2.5,
    "\N{THUMBS UP SIGN}": 1.5, "\N{WHITE MEDIUM STAR}": 1.0,
}  # fmt: skip
#: Of whole phrases.
PHRASES = {
    -2.0: (
        "waiting forever,get lost,get a job,fed up,waste of,waste my,let down,expected better,expected more,not worth,"
        "too small,too slow,too big,too loud,too expensive,poor quality,not explain,not ship,never again,never buy,"
        "never use,never order,thanks for nothing,nobody answers,nobody responds,nobody answering,no answer,"
        "no response,give up,nothing working,here by now"
    ),
    1.5: "no problem with,no problems with,no issue with,no issues with,no complaints,never had problem",
    2.0: "works well,work well,works fine,worked fine,works great,works perfectly,look forward,well done",
}
#: Who has one of these to say is not content, also in plain words.
INTENT_BLAMES = {
    "report_danger": 4.0,
    "threaten_legal_action": 4.0,
    "report_fraud": 4.0,
    "report_loss": 4.0,
    "complain": 2.0,
    "report_problem": 2.0,
}

#: "n't" at the end of a word is read as "not" as well.
NOT = _set(
    "cannot cant dont doesnt didnt isnt arent wasnt werent wont wouldnt couldnt shouldnt hasnt havent hadnt aint"
)
NEGATIONS = _set("not no never without hardly barely nothing nobody none neither nor")
#: "have a nice day" is courtesy, "had a nice day" is praise.
WISHES = _set("day one evening night weekend morning afternoon time week")

#: Without those that are words of other languages as well.
COMMON_ENGLISH = _set(
    "the and is are were to of my your his her their you i i'm i've i'd i'll it it's its not have has had for with "
    "this that what how when where why who which can could would should does did don't be been but or if at from by "
    "about they them we our he she there here just all some any yes get got need want please thanks thank hello hi "
    "hey help good great day very too more than out up down now then because only also much one"
)
#: Frequent in German, Spanish, French, Portuguese, Italian, Dutch, Polish or Swedish, and not English.
COMMON_FOREIGN = _set(
    "der das und ist nicht ich ein eine mein meine sie wir für mit auf auch sehr aber bitte bin habe kann el los las "
    "que de en un una por para mi es está pero muy como lo del hola gracias este tengo le les des est une et je pas "
    "vous nous mon pour dans sur avec ne ce il elle bonjour merci très qui au du os um uma não meu minha com foi eu "
    "isso obrigado você il di che è non per sono mio mia ho grazie ciao della del questo het een niet ik mijn zijn "
    "voor maar deze heb nie jest się na mam proszę jak och att det är inte jag"
)
