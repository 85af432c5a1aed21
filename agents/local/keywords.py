"""The local analyser's keyword tables and the functions that apply them. English only.

Raise RULES_VERSION with every change here: it is part of the analysis version, under which cached answers are served.
"""

import re

from schemas.insight import MAX_TOPICS, Urgency

RULES_VERSION = 1

_TOPICS = {
    "billing": "bill,billing,invoice,charge,charged,charges,overcharged,fee,fees,payment,pay,paid,price,cost,card",
    "refund": "refund,refunds,refunded,reimburse,reimbursement,money back,chargeback",
    "delivery": "delivery,deliver,delivered,shipping,shipped,shipment,package,parcel,courier,tracking",
    "returns": "return,returns,returned,exchange,replacement",
    "account": "account,profile,username,sign up,subscription,subscribe,unsubscribe,membership",
    "login": "login,log in,logged out,sign in,password,locked out,verification,2fa,authentication",
    "outage": "outage,down,offline,unavailable,no service,no signal",
    "technical problem": "bug,error,errors,crash,crashes,crashed,broken,freeze,freezes,glitch,failed,fails,install",
    "booking": "book,booking,reservation,reserve,flight,hotel,seat,appointment,schedule,reschedule",
    "order": "order,orders,ordered,cart,checkout,purchase,purchased",
    "security": "fraud,fraudulent,scam,phishing,hacked,stolen,unauthorized,unauthorised,breach",
    "product": "product,quality,feature,features,model,battery,screen,camera,sound,app",
    "staff": "agent,staff,representative,manager,customer service,support team,rude",
    "network": "internet,wifi,wi-fi,router,broadband,connection,network,vpn,dns",
}
_URGENCIES: dict[Urgency, str] = {
    "critical": "emergency,suicide,kill myself,injured,danger,on fire,data breach,hacked,stolen,fraud",
    "high": "urgent,urgently,asap,immediately,right now,right away,lawyer,locked out,outage,today,deadline",
    "medium": "problem,issue,broken,error,failed,refund,cancel,complaint,not working,doesn't work,waiting",
}
#: The first match wins, so the most specific intents come first.
_INTENTS = {
    "request_refund": "refund,money back,reimburse,chargeback",
    "cancel": "cancel,cancellation,unsubscribe,terminate,close my account",
    "report_fraud": "fraud,fraudulent,scam,hacked,stolen,unauthorized,unauthorised",
    "complain": "complaint,complain,unacceptable,terrible,worst,awful,disgusting,ridiculous",
    "report_problem": "problem,issue,error,broken,not working,doesn't work,crash,crashes,failed,bug,outage",
    "make_booking": "book,booking,reserve,reservation,appointment,schedule",
    "place_order": "order,buy,purchase",
    "give_praise": "great,excellent,amazing,love,perfect,awesome,fantastic,wonderful",
}


def _pattern(keywords: str) -> re.Pattern[str]:
    return re.compile(r"\b(?:" + "|".join(map(re.escape, keywords.split(","))) + r")\b")


_TOPIC_PATTERNS = {topic: _pattern(keywords) for topic, keywords in _TOPICS.items()}
_URGENCY_PATTERNS = {urgency: _pattern(keywords) for urgency, keywords in _URGENCIES.items()}
_INTENT_PATTERNS = {intent: _pattern(keywords) for intent, keywords in _INTENTS.items()}
_COMMON_ENGLISH = re.compile(r"\b(?:the|and|is|are|was|to|of|my|you|i|it|not|have|for|with|this|that|what|how)\b")


def topics(lowered: str) -> tuple[str, ...]:
    """Returns up to MAX_TOPICS topics mentioned in the lower-case text, the most frequent first."""
    counts = {topic: len(pattern.findall(lowered)) for topic, pattern in _TOPIC_PATTERNS.items()}
    named = sorted((topic for topic, count in counts.items() if count), key=lambda topic: -counts[topic])
    return tuple(named[:MAX_TOPICS])


def urgency(lowered: str) -> Urgency:
    """Returns the highest urgency that one of its keywords indicates, or low."""
    return next((level for level, pattern in _URGENCY_PATTERNS.items() if pattern.search(lowered)), "low")


def intent(lowered: str) -> str:
    """Returns the first intent with a keyword in the text, else `ask_question` if it has a "?", else `inform`."""
    fallback = "ask_question" if "?" in lowered else "inform"
    return next((name for name, pattern in _INTENT_PATTERNS.items() if pattern.search(lowered)), fallback)


def is_english(lowered: str) -> bool:
    """Returns whether at least a tenth of the words are common English ones; False for fewer than four words."""
    words = lowered.split()
    return len(words) >= 4 and len(_COMMON_ENGLISH.findall(lowered)) >= max(2, len(words) // 10)
