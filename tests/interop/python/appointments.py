"""An appointment service in Python: books, starts and ends a visit with aio-pika's defaults.

Usage: appointments.py AMQP_URL. Ends with 0 if every answer came.
"""

import asyncio
import datetime
import json
import sys
import uuid

import aio_pika

EXCHANGE = "appointments-exchange"
PATIENCE = 60


async def publish(exchange, key, body):
    # No content type, no delivery mode, no message id: what a first version of a service sends.
    await exchange.publish(aio_pika.Message(json.dumps(body).encode()), routing_key=key)


async def answer(answers, key, appointment):
    """The next answer of this kind for the appointment; others are passed over."""
    while True:
        message = await asyncio.wait_for(anext(answers), PATIENCE)
        async with message.process():
            body = json.loads(message.body)
            if message.routing_key == key and body["data"]["appointment_id"] == appointment:
                return body["data"]


async def main(url):
    connection = await aio_pika.connect_robust(url)
    async with connection:
        channel = await connection.channel()
        # The same as what is there: a topic exchange that outlives the broker.
        exchange = await channel.declare_exchange(
            EXCHANGE, aio_pika.ExchangeType.TOPIC, durable=True
        )
        queue = await channel.declare_queue("video-session-responses-appointments", durable=True)
        await queue.bind(exchange, "video.session.*")
        async with queue.iterator() as answers:
            appointment = str(uuid.uuid4())
            tomorrow = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
            await publish(exchange, "appointment.video.create", {
                "event_type": "appointment.video.create",
                "timestamp": datetime.datetime.now().isoformat(),
                "data": {
                    "appointment_id": appointment,
                    "doctor_id": "doc123",
                    "patient_id": "pat456",
                    "start_time": tomorrow.isoformat(),
                },
            })
            created = await answer(answers, "video.session.created", appointment)
            assert created["status"] == "created", created
            assert "/visit#" in created["attendee_url"], created
            datetime.datetime.fromisoformat(created["created_at"])
            session = created["session_id"]
            await publish(exchange, "appointment.video.start", {
                "event_type": "appointment.video.start",
                "data": {
                    "session_id": session,
                    "doctor_id": "doc123",
                    "timestamp": datetime.datetime.now().isoformat(),
                },
            })
            started = await answer(answers, "video.session.started", appointment)
            assert started["started_by"] == "doc123", started
            await publish(exchange, "appointment.video.end", {
                "event_type": "appointment.video.end",
                "data": {"session_id": session, "ended_by": "doc123", "ended_by_role": "DOCTOR"},
            })
            ended = await answer(answers, "video.session.completed", appointment)
            assert ended["ended_by_role"] == "doctor", ended
    print("a whole visit")


asyncio.run(main(sys.argv[1]))
