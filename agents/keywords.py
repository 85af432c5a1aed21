"""Keyword rules of the local analyser: tables and how to read them. English only, and meant to be free, not clever.

Whoever changes anything here raises RULES_VERSION, since answers that were kept are served by it.
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
#: The first that matches wins: from the most telling to the least.
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
    """At most MAX_TOPICS topics named in the lower-case text, the most often named first."""
    counts = {topic: len(pattern.findall(lowered)) for topic, pattern in _TOPIC_PATTERNS.items()}
    named = sorted((topic for topic, count in counts.items() if count), key=lambda topic: -counts[topic])
    return tuple(named[:MAX_TOPICS])


def urgency(lowered: str) -> Urgency:
    """The highest urgency that a keyword speaks for, else low."""
    return next((level for level, pattern in _URGENCY_PATTERNS.items() if pattern.search(lowered)), "low")


def intent(lowered: str) -> str:
    """The most telling intent, else `ask_question` where there is a question mark, else `inform`."""
    fallback = "ask_question" if "?" in lowered else "inform"
    return next((name for name, pattern in _INTENT_PATTERNS.items() if pattern.search(lowered)), fallback)


def is_english(lowered: str) -> bool:
    """True where common English words make up a fair part; short texts are rather not told."""
    words = lowered.split()
    return len(words) >= 4 and len(_COMMON_ENGLISH.findall(lowered)) >= max(2, len(words) // 10)
